"""Which expert's keywords a text contains, for all experts at once.

Both kinds of pattern become one trie each, written as a regular expression that looks ahead from every position where a
match may begin and finds the longest pattern there. The shorter ones that begin at the same place are known when the
matcher is built. So the time is linear in the text and does not grow with the number of patterns.
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
        words: dict[str, list[tuple[str, float]]] = {}
        literals: dict[str, list[tuple[str, float]]] = {}
        for expert, patterns in sorted(experts.items()):
            for pattern in patterns:
                folded = pattern.text.casefold()
                if pattern.kind == "Word":
                    words.setdefault(folded.strip(), []).append((expert, pattern.weight))
                else:
                    literals.setdefault(folded, []).append((expert, pattern.weight))
        words.pop("", None)
        self._words = re.compile(rf"(?<!\w)(?=({_trie(words)})(?!\w))") if words else None
        self._literals = re.compile(f"(?=({_trie(literals)}))") if literals else None
        self._word_hits = {found: _covered(found, words, whole_words=True) for found in words}
        self._literal_hits = {found: _covered(found, literals, whole_words=False) for found in literals}

    def scores(self, text: str) -> dict[str, float]:
        """The score of each expert of which a pattern is in *text*."""
        folded = window(text).casefold()
        found: dict[tuple[str, str], float] = {}
        if self._words is not None:
            for hit in set(self._words.findall(folded)):
                _count(found, self._word_hits[hit])
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


def _count(found: dict[tuple[str, str], float], entries: Sequence[tuple[str, str, float]]) -> None:
    """Each distinct text counts once for an expert, by the heaviest of its weights."""
    for expert, pattern, weight in entries:
        key = (expert, pattern)
        if weight > found.get(key, 0.0):
            found[key] = weight


def _covered(
    hit: str, table: Mapping[str, Sequence[tuple[str, float]]], *, whole_words: bool
) -> tuple[tuple[str, str, float], ...]:
    """What is found where *hit* is: itself, and each pattern that it begins with."""
    prefixes = (hit[:n] for n in range(1, len(hit) + 1))
    return tuple(
        (expert, prefix, weight)
        for prefix in prefixes
        if prefix in table and not (whole_words and _is_word(hit[len(prefix) : len(prefix) + 1]))
        for expert, weight in table[prefix]
    )


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None


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
