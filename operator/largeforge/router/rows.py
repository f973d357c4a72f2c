"""The texts that are learnt from, in the order in which the heads need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from largeforge.router.generic import SENTENCES
from largeforge.router.learnt import Lesson
from largeforge.router.products import Vectors
from largeforge.router.ridge import Matrix
from largeforge.router.terms import Floats, Indices, Vocabulary
from largeforge.router.text import canonical

GENERIC_LIKE_EXAMPLE = 0.6
"""A generic sentence that is so like an example (the cosine) is some expert's subject, and left out."""
NEGATIVE = -0.5
"""What a negative example should score for its expert."""
NOBODY = -1
"""The owner of a generic sentence. That of a negative example of column c is -2 - c."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The texts that are learnt from: each expert's examples together, then negative ones, then those of nobody."""

    experts: tuple[str, ...]
    texts: tuple[str, ...]
    owners: Indices

    @property
    def examples(self) -> int:
        """How many are an expert's."""
        return int(np.count_nonzero(self.owners >= 0))

    @property
    def counts(self) -> Indices:
        """How many each expert has."""
        return np.bincount(self.owners[: self.examples], minlength=len(self.experts))

    @property
    def starts(self) -> Indices:
        """Where each expert's begin, and where the last one's end."""
        return np.concatenate(([0], np.cumsum(self.counts)))

    @property
    def nobody(self) -> Indices:
        """The generic sentences."""
        return np.flatnonzero(self.owners == NOBODY)

    @property
    def fewest(self) -> int:
        """How many the expert with the fewest has."""
        return int(self.counts.min())

    def only(self, keep: Indices) -> Rows:
        """Those of *keep*, in their order."""
        return Rows(self.experts, tuple(self.texts[i] for i in keep), self.owners[keep])


def rows_of(lessons: Sequence[Lesson], generic: Sequence[str] = SENTENCES) -> Rows:
    """The rows of *lessons*; experts by name, and each distinct text of one once."""
    examples = {
        lesson.expert: found
        for lesson in sorted(lessons, key=lambda lesson: lesson.expert)
        if (found := _distinct(lesson.examples))
    }
    negatives = {lesson.expert: _distinct(lesson.negatives) for lesson in lessons}
    texts: list[str] = []
    owners: list[int] = []
    for column, found in enumerate(examples.values()):
        texts += found
        owners += [column] * len(found)
    for column, expert in enumerate(examples):
        texts += negatives[expert]
        owners += [-2 - column] * len(negatives[expert])
    nobody = _distinct(generic)
    return Rows(tuple(examples), (*texts, *nobody), np.array([*owners, *[NOBODY] * len(nobody)], dtype=np.intp))


def targets_of(rows: Rows) -> Matrix:
    """What each row should score for each expert: one for its owner."""
    targets = np.zeros((len(rows.texts), len(rows.experts)))
    owned = np.flatnonzero(rows.owners >= 0)
    targets[owned, rows.owners[owned]] = 1.0
    return targets


def unlike_examples(rows: Rows, likeness: Matrix | Floats) -> Indices:
    """All rows but the generic sentences that are like an example; *likeness* has a row for each such sentence."""
    like = rows.nobody[likeness.max(axis=1) >= GENERIC_LIKE_EXAMPLE]
    return np.setdiff1d(np.arange(len(rows.texts)), like)


def weights(vectors: Vectors, duals: Matrix, words: Vocabulary) -> Floats:
    """What each term says of each expert: the texts' coefficients, folded into their terms."""
    found = np.zeros((len(words.numbers), duals.shape[1]), dtype=np.float32)
    for (at, values), dual in zip(vectors, duals.astype(np.float32), strict=True):
        found[at] += values[:, None] * dual
    return found


def _distinct(texts: Sequence[str]) -> list[str]:
    """The canonical forms, each once, without those that have no word."""
    return [text for text in dict.fromkeys(map(canonical, texts)) if text]
