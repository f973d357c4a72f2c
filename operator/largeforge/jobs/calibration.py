"""The text that a quantization learns its scales on, and the text that its result is measured on.

Rows are read by the trainer's own code. Which of them are taken depends on their content and the seed alone: each row
gets a number from both, and the smallest ones are taken. So the order of the rows does not matter, a row that stands
there twice is taken once, and memory holds the rows that are taken, however many are read.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from largeforge.api.run import RowSource
from largeforge.jobs import policy, sources
from largeforge.jobs.formats import Row
from largeforge.jobs.problems import Problem
from largeforge.jobs.sources import Bad, Source
from largeforge.jobs.tokens import Encoder, RefusedError, messages_of

LOOKED_AT = 50_000
"""Rows of each data set that are looked at, the first ones: a few hundred are taken, and reading takes time."""
_SHOWN_PROBLEMS = 5

Render = Callable[[Row], str]


@dataclass(slots=True)
class Read:
    """What was read, and the rows that were taken."""

    rows: int = 0
    invalid: int = 0
    duplicates: int = 0
    bounded: bool = False
    """Whether a data set has more rows than were looked at."""
    problems: list[str] = field(default_factory=list)
    """The first rows that are wrong."""
    texts: list[Text] = field(default_factory=list)
    """The rows that were taken, in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class Text:
    """A row as the model reads it."""

    text: str
    templated: bool
    """Whether a chat template wrote it, special tokens and all."""


@dataclass(slots=True)
class Taken:
    """The rows with the smallest numbers, at most *limit* of them."""

    limit: int
    _heap: list[tuple[int, Text]] = field(default_factory=list)

    def offer(self, number: int, render: Callable[[], Text]) -> None:
        """Take the row of this *number* in, unless the ones that are here are all smaller."""
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, (-number, render()))
        elif self._heap and number < -self._heap[0][0]:
            heapq.heapreplace(self._heap, (-number, render()))

    def texts(self) -> list[Text]:
        """The rows, the smallest number first."""
        return [text for _, text in sorted(self._heap, key=lambda entry: -entry[0])]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are taken, and how they are written."""

    take: int
    seed: int
    chat_template: bool
    require_template: Callable[[], None]
    """Raises where the model has no chat template, and conversations need one."""


def read(specs: Sequence[RowSource], tokenizer: Any, choice: Choice, *, cache: str | None) -> Read:
    """Read *specs* and take some of their rows."""
    found = Read()
    taken = Taken(choice.take)
    seen: set[int] = set()
    for spec in specs:
        source = sources.open_source(spec, cache)
        if choice.chat_template and "messages" in source.kind:
            choice.require_template()
        render = renderer(source, tokenizer, chat_template=choice.chat_template)
        for count, entry in enumerate(sources.rows(source)):
            if count == LOOKED_AT:
                found.bounded = True
                break
            found.rows += 1
            if isinstance(entry, Bad):
                _note(found, entry)
                continue
            number = number_of(entry.encoded, choice.seed)
            if number in seen:
                found.duplicates += 1
                continue
            seen.add(number)
            try:
                taken.offer(number, lambda row=entry.row, write=render: write(row))  # type: ignore[misc]
            except RefusedError as refusal:
                _note(found, Bad(entry.file, entry.line, Problem("", str(refusal))))
    found.texts = taken.texts()
    return found


def _note(found: Read, bad: Bad) -> None:
    found.invalid += 1
    if len(found.problems) < _SHOWN_PROBLEMS:
        found.problems.append(policy.cut(str(bad)))


def number_of(encoded: bytes, seed: int) -> int:
    """The number of a row: the beginning of a hash over its content, keyed with the seed."""
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8, key=str(seed).encode()).digest())


def renderer(source: Source, tokenizer: Any, *, chat_template: bool) -> Callable[[Row], Text]:
    """What writes the rows of *source* as the model reads them."""
    encoder = Encoder(tokenizer, source.kind)
    if not encoder.conversational:
        return lambda row: Text(encoder.render(row), templated=False)
    if chat_template:
        return lambda row: Text(encoder.render(row), templated=True)
    return lambda row: Text("\n".join(message["content"] for message in messages_of(row)), templated=False)


def tokenized(texts: Sequence[Text], tokenizer: Any) -> Iterator[list[int]]:
    """The token ids of *texts*, whole."""
    for one in texts:
        ids = tokenizer(one.text, add_special_tokens=not one.templated)["input_ids"]
        yield list(ids)


def windows(samples: Iterator[list[int]], *, length: int, limit: int) -> list[list[int]]:
    """*samples* cut into windows of at most *length* tokens, *limit* of them; none of one token, for nothing is
    predicted in it.
    """
    cut = (ids[begin : begin + length] for ids in samples for begin in range(0, len(ids), length))
    return list(itertools.islice((window for window in cut if len(window) > 1), limit))
