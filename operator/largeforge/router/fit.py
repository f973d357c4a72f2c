"""From the experts' lessons to what is learnt of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from largeforge.router.generic import SENTENCES
from largeforge.router.learnt import FEW, NEAREST_SHARE, TERMS_SHARE, Cheap, Embed, Full, Learnt, Lesson, radial
from largeforge.router.ridge import Matrix, calibrated, coefficients, left_out
from largeforge.router.terms import Floats, Indices, Vocabulary, vocabulary
from largeforge.router.text import canonical

GENERIC_LIKE_EXAMPLE = 0.6
"""A generic sentence that is so like an example (the cosine) is some expert's subject, and left out."""
NEGATIVE = -0.5
"""What a negative example should score for its expert."""
NOBODY = -1
"""The owner of a generic sentence. That of a negative example of column c is -2 - c."""

_Vectors = Sequence[tuple[Indices, Floats]]


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


def learn(lessons: Sequence[Lesson], embed: Embed | None = None) -> Learnt | None:
    """What the examples of *lessons* say; by their terms alone without *embed*. None where there is no example."""
    rows = rows_of(lessons)
    if not rows.experts:
        return None
    words = vocabulary(rows.texts[: rows.examples])
    vectors = [words.vector(text) for text in rows.texts]
    terms = _products(vectors, words)
    embeddings = embed(rows.texts) if embed is not None else None
    cosines = None if embeddings is None else (embeddings @ embeddings.T).astype(np.float64)
    keep = _unlike_examples(rows, terms if cosines is None else np.maximum(terms, cosines))
    rows, vectors, terms = rows.only(keep), [vectors[i] for i in keep], terms[np.ix_(keep, keep)]
    few = bool(rows.counts.min() < FEW)
    owners = rows.owners[: rows.examples]
    duals, scores = _fitted(terms, rows)
    worth = calibrated(scores, owners, top=1.0)
    full = None
    if embeddings is not None and cosines is not None:
        worth = worth.never_clear() if few else worth
        full, scores = _full(rows, words, vectors, terms, embeddings[keep], cosines[np.ix_(keep, keep)])
    cheap = Cheap(words, _weights(vectors, duals, words), worth)
    return Learnt(rows.experts, cheap, full, few, scores.argmax(axis=1))


def _full(  # noqa: PLR0913, PLR0917 - both kinds of features, each with its products
    rows: Rows, words: Vocabulary, vectors: _Vectors, terms: Matrix, embeddings: Floats, cosines: Matrix
) -> tuple[Full, Matrix]:
    """The full head, and the examples' left-out scores."""
    share = 0.0 if rows.counts.min() < FEW else TERMS_SHARE
    duals, scores = _fitted(share * terms + radial(cosines), rows)
    scores += NEAREST_SHARE * _nearest_other(cosines, rows)
    return Full(
        words=words,
        weights=_weights(vectors, share * duals, words) if share else np.zeros((0, 0), dtype=np.float32),
        rows=np.ascontiguousarray(embeddings, dtype=np.float32),
        duals=duals.astype(np.float32),
        starts=rows.starts,
        worth=calibrated(scores, rows.owners[: rows.examples], top=1 + NEAREST_SHARE),
    ), scores


def _fitted(kernel: Matrix, rows: Rows) -> tuple[Matrix, Matrix]:
    """The coefficients, and the examples' left-out scores."""
    targets = np.zeros((len(rows.texts), len(rows.experts)))
    owned = np.flatnonzero(rows.owners >= 0)
    targets[owned, rows.owners[owned]] = 1.0
    negative = np.flatnonzero(rows.owners < NOBODY)
    if len(negative):
        # Of the other experts it says nothing: they keep what they think of it.
        others = np.flatnonzero(rows.owners >= NOBODY)
        found = coefficients(kernel[np.ix_(others, others)], targets[others])
        targets[negative] = kernel[np.ix_(negative, others)] @ found
        targets[negative, -2 - rows.owners[negative]] = NEGATIVE
    duals, scores = left_out(kernel, targets)
    return duals, scores[: rows.examples]


def _nearest_other(cosines: Matrix, rows: Rows) -> Matrix:
    """For each example its likeness to the nearest other one of each expert; 0 where there is no other."""
    among = cosines[: rows.examples, : rows.examples].copy()
    np.fill_diagonal(among, -np.inf)
    nearest = np.maximum.reduceat(among, rows.starts[:-1], axis=1)
    return np.where(np.isfinite(nearest), nearest, 0.0)


def _unlike_examples(rows: Rows, likeness: Matrix) -> Indices:
    """All rows but the generic sentences that are like an example."""
    nearest = likeness[:, : rows.examples].max(axis=1)
    return np.flatnonzero((rows.owners != NOBODY) | (nearest < GENERIC_LIKE_EXAMPLE))


def _products(vectors: _Vectors, words: Vocabulary) -> Matrix:
    """The dot product of each text with each."""
    lengths = [len(at) for at, _ in vectors]
    at = np.concatenate([at for at, _ in vectors])
    values = np.concatenate([values for _, values in vectors])
    owners = np.repeat(np.arange(len(vectors)), lengths)
    products = np.empty((len(vectors), len(vectors)))
    dense = np.zeros(len(words.numbers), dtype=np.float32)
    for row, (mine, weights) in enumerate(vectors):
        dense[mine] = weights
        products[row] = np.bincount(owners, values * dense[at], minlength=len(vectors))
        dense[mine] = 0
    return products


def _weights(vectors: _Vectors, duals: Matrix, words: Vocabulary) -> Floats:
    """What each term says of each expert: the texts' coefficients, folded into their terms."""
    found = np.zeros((len(words.numbers), duals.shape[1]), dtype=np.float32)
    for (at, values), dual in zip(vectors, duals.astype(np.float32), strict=True):
        found[at] += values[:, None] * dual
    return found


def _distinct(texts: Sequence[str]) -> list[str]:
    """The canonical forms, each once, without those that have no word."""
    return [text for text in dict.fromkeys(map(canonical, texts)) if text]
