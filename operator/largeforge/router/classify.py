"""Which expert's keywords a text contains, for all experts at once.

A pattern that is a single word is looked up in the set of the text's words. The others become one trie each (Words of
several parts, Literals), written as a regular expression that looks ahead from every position where a match may begin
and finds the longest pattern there; the shorter ones that begin at the same place are known when the matcher is built.
So the time is linear in the text and does not grow with the number of patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

KEYWORD_WEIGHT = 1.0
DOMAIN_WEIGHT = 0.5
HALF_WEIGHT = 0.5
"""The weight at which the score is one half; see `score`."""
WINDOW = 8192
"""Characters looked at from each end of a text; what lies between is not classified."""

_END = ""
_WORD = re.compile(r"\w+")
_ASCII_APART = {code: " " for code in range(128) if not _WORD.match(chr(code))}
"""What stands between words, to a space: several times faster than the regular expression."""

_Entry = tuple[str, str, float]
"""Expert, pattern, weight."""
_Table = dict[str, list[_Entry]]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One keyword or domain of an expert."""

    text: str
    kind: Literal["Word", "Literal"]
    weight: float


def score(weight: float) -> float:
    """The score, from 0 to 1, of all that was found: 0.67 for one keyword, 0.80 for two, 0.50 for a domain."""
    return weight / (weight + HALF_WEIGHT)


class Matcher:
    """The patterns of all experts."""

    def __init__(self, experts: Mapping[str, Iterable[Pattern]]) -> None:
        words: _Table = {}
        phrases: _Table = {}
        literals: _Table = {}
        for expert, patterns in sorted(experts.items()):
            for pattern in patterns:
                folded = pattern.text.casefold()
                table = literals
                if pattern.kind == "Word":
                    folded = folded.strip()
                    table = words if _WORD.fullmatch(folded) else phrases
                table.setdefault(folded, []).append((expert, folded, pattern.weight))
        phrases.pop("", None)
        self._words = words
        self._phrases = re.compile(rf"(?<!\w)(?=({_trie(phrases)})(?!\w))") if phrases else None
        self._literals = re.compile(f"(?=({_trie(literals)}))") if literals else None
        self._phrase_hits = {found: _covered(found, phrases, whole_words=True) for found in phrases}
        self._literal_hits = {found: _covered(found, literals, whole_words=False) for found in literals}
        # A phrase can only be there if its first word is; one without any word may always be.
        firsts = {found: _WORD.search(found) for found in phrases}
        self._phrase_words = frozenset(first.group() for first in firsts.values() if first)
        self._wordless = not all(firsts.values())

    def scores(self, text: str) -> dict[str, float]:
        """The score of each expert of which a pattern is in *text*."""
        folded = window(text).casefold()
        found: dict[tuple[str, str], float] = {}
        said = _words_of(folded)
        for hit in self._words.keys() & said:
            _count(found, self._words[hit])
        if self._phrases is not None and (self._wordless or not self._phrase_words.isdisjoint(said)):
            for hit in set(self._phrases.findall(folded)):
                _count(found, self._phrase_hits[hit])
        if self._literals is not None:
            for hit in set(self._literals.findall(folded)):
                _count(found, self._literal_hits[hit])
        weights: dict[str, float] = {}
        for (expert, _), weight in found.items():
            weights[expert] = weights.get(expert, 0.0) + weight
        return {expert: score(weight) for expert, weight in weights.items()}


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


def _count(found: dict[tuple[str, str], float], entries: Sequence[_Entry]) -> None:
    """Each distinct text counts once for an expert, by the heaviest of its weights."""
    for expert, pattern, weight in entries:
        key = (expert, pattern)
        if weight > found.get(key, 0.0):
            found[key] = weight


def _words_of(folded: str) -> set[str]:
    if folded.isascii():
        return set(folded.translate(_ASCII_APART).split())
    return set(_WORD.findall(folded))


def _covered(hit: str, table: Mapping[str, Sequence[_Entry]], *, whole_words: bool) -> tuple[_Entry, ...]:
    """What is found where *hit* is: itself, and each pattern that it begins with."""
    prefixes = (hit[:n] for n in range(1, len(hit) + 1))
    return tuple(
        entry
        for prefix in prefixes
        if prefix in table and not (whole_words and _is_word(hit[len(prefix) : len(prefix) + 1]))
        for entry in table[prefix]
    )


def _is_word(character: str) -> bool:
    return _WORD.match(character) is not None


def _trie(texts: Iterable[str]) -> str:
    """A regular expression that matches the longest of *texts* that fits."""
    root: dict[str, dict[str, object]] = {}
    for text in sorted(texts):
        node: dict[str, object] = root  # type: ignore[assignment]
        for character in text:
            node = node.setdefault(character, {})  # type: ignore[assignment]
        node[_END] = {}
    return _expression(root)


def _expression(node: Mapping[str, object]) -> str:
    branches = [
        re.escape(character) + _expression(below)  # type: ignore[arg-type]
        for character, below in node.items()
        if character != _END
    ]
    if not branches:
        return ""
    if len(branches) == 1 and _END not in node:
        return branches[0]
    return f"(?:{'|'.join(branches)})" + ("?" if _END in node else "")
