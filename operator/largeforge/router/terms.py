"""TF-IDF over words and parts of words, without a dictionary: a term is a 64-bit number computed from its characters.

So a text's terms come from a few numpy operations, the vocabulary is a sorted array that costs nothing to hand to
another process, and no answer depends on Python's hash. Two groups of terms are each brought to length one: words with
pairs of neighbours, and runs of 2 to 5 characters within a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_LENGTHS = (2, 3, 4, 5)
_WORDS = np.uint64(1 << 63)
"""The bit of words and pairs; so they stand behind all parts of words."""
_PARTS = ~_WORDS
MOST_TERMS = 1 << 16
"""The rarest are left out beyond it; so the table of weights has a bound."""
_MOST_CHARACTERS = 512
_POWERS = np.cumprod(np.full(_MOST_CHARACTERS, _FACTOR, dtype=np.uint64))
_SPACE = 0x20
_HALF = np.float32(np.sqrt(0.5))


def terms(text: str) -> tuple[Numbers, Floats]:
    """The distinct terms of a `text.canonical` text, sorted, and of each 1 + log of how often it is there."""
    codes = np.frombuffer(f" {text[: _MOST_CHARACTERS - 2]} ".encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    spaces = codes == _SPACE
    inside = np.cumsum(spaces)
    found = []
    run = codes
    for length in _LENGTHS:
        run = run[:-1] * _FACTOR + codes[length - 1 :]
        whole = inside[length - 2 : -1] == inside[: 1 - length] if length > 2 else slice(None)
        found.append((run[whole] * _PAIR + np.uint64(length)) & _PARTS)
        if len(run) < 2:
            break
    starts = np.flatnonzero(spaces[:-1]) + 1
    # The position within its word weighs a character, so that equal words are equal wherever they stand.
    positions = np.arange(1, len(codes)) - np.repeat(starts, _gaps(starts, len(codes)))
    words = np.add.reduceat(codes[1:] * _POWERS[positions], starts - 1)
    found.append(words | _WORDS)
    found.append((words[:-1] * _PAIR + words[1:]) | _WORDS)
    every = np.concatenate(found)
    every.sort()
    new = np.empty(len(every), dtype=np.bool_)
    new[0] = True
    np.not_equal(every[1:], every[:-1], out=new[1:])
    at = new.nonzero()[0]
    counts = _gaps(at, len(every))
    return every[at], (1 + np.log(counts)).astype(np.float32)


def _gaps(starts: Indices, end: int) -> Indices:
    """From each of *starts* to the next, and from the last to *end*; numpy's own function takes three times as long."""
    found = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=found[:-1])
    found[-1] = end - starts[-1]
    return found


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The terms of the examples."""

    numbers: Numbers
    """Sorted."""
    weights: Floats
    """How rare each is (the inverse document frequency)."""
    unknown: np.float32
    """The weight of a term that no example has: that of one which a single example has.

    It makes a text's length, so that a text of unknown words is far from all; and an example that is left out looks
    just as an unseen text does.
    """

    def vector(self, text: str) -> tuple[Indices, Floats]:
        """The indices of the known terms of *text*, and their values; both groups of terms together have length one."""
        return self.of(*terms(text))

    def of(self, numbers: Numbers, counts: Floats) -> tuple[Indices, Floats]:
        """The same of a text's `terms`."""
        at = np.searchsorted(self.numbers, numbers)
        at[at == len(self.numbers)] = 0
        known = self.numbers[at] == numbers
        values = counts * np.where(known, self.weights[at], self.unknown)
        half = int(np.searchsorted(numbers, _WORDS))
        for group in (slice(None, half), slice(half, None)):
            part = values[group]
            values[group] = part * (_HALF / np.sqrt(part @ part))
        return at[known], values[known]


def vocabulary(texts: Sequence[Numbers]) -> Vocabulary:
    """The vocabulary of texts, of each its distinct terms."""
    every = np.concatenate(texts)
    numbers, in_texts = np.unique(every, return_counts=True)
    if len(numbers) > MOST_TERMS:
        # The commonest; of equally common ones the lowest, which is any, but always the same.
        keep = np.sort(np.lexsort((numbers, -in_texts))[:MOST_TERMS])
        numbers, in_texts = numbers[keep], in_texts[keep]
    count = len(texts)
    weights = np.log((1 + count) / (1 + in_texts)) + 1
    return Vocabulary(numbers, weights.astype(np.float32), np.float32(np.log((1 + count) / 2) + 1))
