"""Keywords that are more than a word: which of them a text contains.

They are one trie, written as a regular expression that looks ahead from every position where a match may begin and
finds the longest pattern there; the shorter ones that begin at the same place are known when it is built. So the time
is linear in the text and does not grow with the number of patterns.

A trie costs 50 ns a character. So a pattern is looked for only where its key is, one run of letters and digits in it;
and by itself where few are left, since «c» is in nearly every text, and «c++» seldom.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

Entry = tuple[str, str, float]
"""Expert, pattern, weight."""
Table = dict[str, list[Entry]]
Trie = dict[str, "Trie"]
"""By the next character, what goes on; with `_END` where a text ends."""

ONE_BY_ONE = 64
"""Characters of patterns that are looked for by themselves. In a text that is made for it each of them is compared with
each of the text's, which takes as long as the trie; in others it takes a fiftieth."""

_END = ""
_WORD = re.compile(r"\w+")


class Sought(NamedTuple):
    """Which patterns may be in a text where a key is."""

    few: tuple[str, ...]
    """These."""
    many: bool
    """So many or long ones that the trie is asked."""


NOTHING = Sought((), many=False)


class Spans:
    """Patterns, casefolded, each with its key; with *whole_words* no word goes on right before or after one."""

    def __init__(self, table: Mapping[str, Sequence[Entry]], keys: Mapping[str, str], *, whole_words: bool) -> None:
        self._table = table
        self._whole_words = whole_words
        looked = rf"(?<!\w)(?=({trie(table)})(?!\w))" if whole_words else f"(?=({trie(table)}))"
        self._trie = re.compile(looked) if table else None
        self._hits = {found: _covered(found, table, whole_words=whole_words) for found in table}
        of_key: dict[str, list[str]] = {}
        for pattern in table:
            of_key.setdefault(keys[pattern], []).append(pattern)
        self._sought = {key: _sought(patterns) for key, patterns in of_key.items()}
        self.always = self.sought([""])
        """Those without a key."""

    def sought(self, keys: Iterable[str]) -> Sought:
        """What may be where all these keys are."""
        return merged([self._sought[key] for key in keys if key in self._sought])

    def within(self, folded: str, sought: Sequence[Sought]) -> list[Entry]:
        """The entries of the patterns that are in *folded*; none but *sought* can be."""
        few, many = merged(sought)
        if many and self._trie is not None:
            return [entry for hit in set(self._trie.findall(folded)) for entry in self._hits[hit]]
        return [entry for pattern in few if self._is_in(folded, pattern) for entry in self._table[pattern]]

    def _is_in(self, folded: str, pattern: str) -> bool:
        at = folded.find(pattern)
        while at >= 0:
            end = at + len(pattern)
            if not self._whole_words or not (_is_word(folded[at - 1 : at]) or _is_word(folded[end : end + 1])):
                return True
            at = folded.find(pattern, at + 1)
        return False


def merged(sought: Sequence[Sought]) -> Sought:
    """What is sought by any."""
    if not sought:
        return NOTHING
    if len(sought) == 1:
        return sought[0]
    if any(each.many for each in sought):
        return Sought((), many=True)
    return _sought([*dict.fromkeys([pattern for each in sought for pattern in each.few])])


def _sought(patterns: Sequence[str]) -> Sought:
    few = sum(map(len, patterns)) <= ONE_BY_ONE
    return Sought(tuple(patterns) if few else (), many=not few)


def trie_of(texts: Collection[str]) -> re.Pattern[str] | None:
    """What finds the longest of *texts* from every position; None where there are none."""
    return re.compile(f"(?=({trie(texts)}))") if texts else None


def trie(texts: Iterable[str]) -> str:
    """A regular expression that matches the longest of *texts* that fits."""
    root: Trie = {}
    for text in sorted(texts):
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[_END] = {}
    return _expression(root)


def _expression(node: Trie) -> str:
    branches = [re.escape(character) + _expression(below) for character, below in node.items() if character != _END]
    if not branches:
        return ""
    if len(branches) == 1 and _END not in node:
        return branches[0]
    return f"(?:{'|'.join(branches)})" + ("?" if _END in node else "")


def _covered(hit: str, table: Mapping[str, Sequence[Entry]], *, whole_words: bool) -> tuple[Entry, ...]:
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
