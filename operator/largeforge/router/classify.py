"""Which expert's keywords a text contains, for all experts at once.

A pattern that is a single word is looked up in the set of the text's words. What lies inside a word is found by a trie,
and remembered, since people use the same words. The others (`spans`) are looked for only where one of their words, or a
part of one, is. So the time is linear in the text and does not grow with the number of patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum
from typing import Literal, NamedTuple

from largeforge.router.expressions import Expressions, fault
from largeforge.router.spans import NOTHING, Entry, Sought, Spans, Table, trie_of

DOMAIN_WEIGHT = 0.5
HALF_WEIGHT = 0.5
"""The weight at which the score is one half; see `score`."""
WINDOW = 8192
"""Characters looked at from each end of a text; what lies between is not classified."""

REMEMBERED_WORDS = 16_384
"""Of a matcher, so that it takes 2 MB at most."""
REMEMBERED_CHARACTERS = 32
"""The longest word that is remembered; who sends longer ones pays for the trie each time."""

_REGEX = "\0"
"""Stands before a regular expression, so that it is not taken for a keyword of the same letters."""
_WORD = re.compile(r"\w+")
_ASCII_WORDS = bytes(ord(chr(code).lower()) if _WORD.match(chr(code)) else 0x20 for code in range(128)) + bytes(128)
"""Letters in lower case, and a space for what stands between words: many times faster than the regular expression."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One keyword or domain of an expert."""

    text: str
    kind: Literal["Word", "Literal", "Regex"]
    weight: float


def score(weight: float) -> float:
    """The score, from 0 to 1, of all that was found: 0.67 for one keyword, 0.80 for two, 0.50 for a domain."""
    return weight / (weight + HALF_WEIGHT)


class Matcher:
    """The patterns of all experts."""

    def __init__(self, experts: Mapping[str, Iterable[Pattern]]) -> None:
        words: Table = {}
        phrases: Table = {}
        literals: Table = {}
        expressions: Table = {}
        for expert, patterns in sorted(experts.items()):
            for pattern in patterns:
                if pattern.kind == "Regex":
                    expressions.setdefault(pattern.text, []).append((expert, f"{_REGEX}{pattern.text}", pattern.weight))
                    continue
                folded = pattern.text.casefold()
                table = literals
                if pattern.kind == "Word":
                    folded = folded.strip()
                    table = words if _WORD.fullmatch(folded) else phrases
                table.setdefault(folded, []).append((expert, folded, pattern.weight))
        phrases.pop("", None)
        self._expression_entries = {text: entries for text, entries in expressions.items() if fault(text) is None}
        self._expressions = Expressions([*self._expression_entries])
        self._words = words
        firsts = {found: first.group() if (first := _WORD.search(found)) else "" for found in phrases}
        self._phrases = Spans(phrases, firsts, whole_words=True)
        self._literals = literals
        runs = {literal: max(_WORD.findall(literal), key=len, default="") for literal in literals}
        self._inside = trie_of({run for run in runs.values() if run})
        """Finds the literals that are one run, and the longest run of each other."""
        self._runs = frozenset(runs.values())
        mixed = {literal: entries for literal, entries in literals.items() if runs[literal] != literal}
        self._mixed = Spans(mixed, runs, whole_words=False)
        """Literals that are more than letters and digits."""
        self._empty = not (words or phrases or literals or self._expressions)
        self._dull: set[str] = set()
        self._meanings: dict[str, _Meaning] = {}

    def scores(self, text: str) -> dict[str, float]:
        """The score of each expert of which a pattern is in *text*."""
        if self._empty:
            return {}
        text = window(text)
        found = self._found(text)
        for hit in self._expressions.within(text) if self._expressions else ():
            _count(found, self._expression_entries[hit])
        weights: dict[str, list[float]] = {}
        for (expert, _), weight in found.items():
            weights.setdefault(expert, []).append(weight)
        # An exact sum: the order of a set differs between processes.
        return {expert: score(fsum(of_expert)) for expert, of_expert in weights.items()}

    def _found(self, text: str) -> dict[tuple[str, str], float]:
        """The weight of each Word and Literal of each expert that is in *text*."""
        found: dict[tuple[str, str], float] = {}
        phrases = [self._phrases.always] if self._phrases.always is not NOTHING else []
        mixed = [self._mixed.always] if self._mixed.always is not NOTHING else []
        for word in set(_words_of(text)).difference(self._dull):
            meaning = self._meanings.get(word) or self._learn(word)
            if meaning.entries:
                _count(found, meaning.entries)
            if meaning.phrases is not NOTHING:
                phrases.append(meaning.phrases)
            if meaning.mixed is not NOTHING:
                mixed.append(meaning.mixed)
        if phrases or mixed:
            folded = text.casefold()
            _count(found, self._phrases.within(folded, phrases))
            _count(found, self._mixed.within(folded, mixed))
        return found

    def _learn(self, word: str) -> _Meaning:
        """What *word* says; it is remembered, since people use the same ones."""
        longest = self._inside.findall(word) if self._inside is not None else ()
        inside = {hit[:n] for hit in longest for n in range(1, len(hit) + 1)} & self._runs
        entries = self._words.get(word, []) + [e for run in inside for e in self._literals.get(run, ())]
        meaning = _Meaning(tuple(entries), self._phrases.sought([word]), self._mixed.sought(inside))
        if len(word) <= REMEMBERED_CHARACTERS:
            if len(self._dull) + len(self._meanings) >= REMEMBERED_WORDS:
                self._dull.clear()
                self._meanings.clear()
            if meaning != _DULL:
                self._meanings[word] = meaning
            else:
                self._dull.add(word)
        return meaning


class _Meaning(NamedTuple):
    """What a word of a text says."""

    entries: tuple[Entry, ...]
    """Of the patterns that it is, or that lie inside it."""
    phrases: Sought
    """That begin with it."""
    mixed: Sought
    """Literals of which a part lies inside it."""


_DULL = _Meaning((), NOTHING, NOTHING)


@lru_cache(maxsize=8)
def matcher_of(experts: tuple[tuple[str, tuple[Pattern, ...]], ...]) -> Matcher:
    """The matcher of these experts; the same one while their patterns stay, since most changes are of other things."""
    return Matcher(dict(experts))


def best(scores: Mapping[str, float]) -> tuple[str, float] | None:
    """The expert with the highest score, the first by name where several have it."""
    if not scores:
        return None
    return min(scores.items(), key=lambda item: (-item[1], item[0]))


def window(text: str) -> str:
    """The part of *text* that is classified: all of it, or its two ends."""
    if len(text) <= 2 * WINDOW:
        return text
    return f"{text[:WINDOW]}\n{text[-WINDOW:]}"


def _count(found: dict[tuple[str, str], float], entries: Sequence[Entry]) -> None:
    """Each distinct text counts once for an expert, by the heaviest of its weights."""
    for expert, pattern, weight in entries:
        key = (expert, pattern)
        if weight > found.get(key, 0.0):
            found[key] = weight


def _words_of(text: str) -> list[str]:
    if text.isascii():
        return text.encode().translate(_ASCII_WORDS).decode().split()
    return _WORD.findall(text.casefold())
