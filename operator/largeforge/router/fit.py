"""From the experts' lessons to what is learnt of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from largeforge.router import wide
from largeforge.router.learnt import FEW, NEAREST_SHARE, Cheap, Embed, Full, Learnt, Lesson, radial, terms_share
from largeforge.router.products import Vectors, products
from largeforge.router.ridge import Matrix, calibrated, coefficients, left_out
from largeforge.router.rows import (
    NEGATIVE,
    NOBODY,
    Rows,
    rows_of,
    targets_of,
    unlike_examples,
    weights,
)
from largeforge.router.spelling import spelling
from largeforge.router.terms import Floats, Vocabulary, terms, vocabulary
from largeforge.router.twins import Twins, twins

MOST_EXACT = 2000
"""Examples in all; the time grows with their cube. Beyond them the features are fewer than the rows (`wide`)."""


def learn(lessons: Sequence[Lesson], embed: Embed | None = None, *, words: Collection[str] = ()) -> Learnt | None:
    """What the examples of *lessons* say; by their terms alone without *embed*. None where there is no example.

    *words* are those that a language has; without them typos stay as they are.
    """
    rows = rows_of(lessons)
    if not rows.experts:
        return None
    found = [terms(text) for text in rows.texts]
    known = vocabulary([numbers for numbers, _ in found[: rows.examples]])
    vectors = [known.of(*each) for each in found]
    embeddings = embed(rows.texts) if embed is not None else None
    method = wide.learn if rows.examples > MOST_EXACT else _exact
    return replace(method(rows, known, vectors, embeddings), spelling=spelling(rows.texts[: rows.examples], words))


def _exact(rows: Rows, words: Vocabulary, vectors: Vectors, embeddings: Floats | None) -> Learnt:
    """Kernel ridge over all rows."""
    likeness = products(vectors, np.arange(len(vectors))).astype(np.float64)
    cosines = None if embeddings is None else (embeddings @ embeddings.T).astype(np.float64)
    nearest = (likeness if cosines is None else np.maximum(likeness, cosines))[rows.nobody, : rows.examples]
    keep = unlike_examples(rows, nearest)
    rows, vectors, likeness = rows.only(keep), [vectors[i] for i in keep], likeness[np.ix_(keep, keep)]
    alike = likeness if cosines is None else np.maximum(likeness, cosines[np.ix_(keep, keep)])
    of_twins = twins(rows, lambda begin, end: alike[begin:end, begin:end])
    duals, scores = _fitted(likeness, rows, of_twins)
    worth = calibrated(scores[of_twins.judged], rows.owners[of_twins.judged], top=1.0)
    full = None
    if embeddings is not None and cosines is not None:
        worth = worth.never_clear() if rows.fewest < FEW else worth
        full, scores = _full(rows, words, vectors, likeness, embeddings[keep], cosines[np.ix_(keep, keep)], of_twins)
    cheap = Cheap(weights(vectors, duals, words), worth)
    return Learnt(rows.experts, words, cheap, full, rows.fewest < FEW, scores.argmax(axis=1))


def _full(  # noqa: PLR0913, PLR0917 - both kinds of features, each with its products
    rows: Rows,
    words: Vocabulary,
    vectors: Vectors,
    likeness: Matrix,
    embeddings: Floats,
    cosines: Matrix,
    of_twins: Twins,
) -> tuple[Full, Matrix]:
    """The full head, and the examples' left-out scores."""
    share = terms_share(rows.fewest)
    duals, scores = _fitted(share * likeness + radial(cosines), rows, of_twins)
    scores += NEAREST_SHARE * _nearest_other(cosines, rows, of_twins)
    return Full(
        weights=weights(vectors, share * duals, words) if share else np.zeros((0, 0), dtype=np.float32),
        rows=np.ascontiguousarray(embeddings, dtype=np.float32),
        duals=duals.astype(np.float32),
        starts=rows.starts,
        worth=calibrated(scores[of_twins.judged], rows.owners[of_twins.judged], top=1 + NEAREST_SHARE),
    ), scores


def _fitted(kernel: Matrix, rows: Rows, of_twins: Twins) -> tuple[Matrix, Matrix]:
    """The coefficients, and the examples' left-out scores."""
    targets = targets_of(rows)
    negative = np.flatnonzero(rows.owners < NOBODY)
    if len(negative):
        # Of the other experts it says nothing: they keep what they think of it.
        others = np.flatnonzero(rows.owners >= NOBODY)
        found = coefficients(kernel[np.ix_(others, others)], targets[others])
        targets[negative] = kernel[np.ix_(negative, others)] @ found
        targets[negative, -2 - rows.owners[negative]] = NEGATIVE
    duals, scores = left_out(kernel, targets, of_twins.groups)
    return duals, scores[: rows.examples]


def _nearest_other(cosines: Matrix, rows: Rows, of_twins: Twins) -> Matrix:
    """For each example its likeness to the nearest one of each expert that is no twin; 0 where there is none."""
    among = cosines[: rows.examples, : rows.examples].copy()
    groups = of_twins.groups[: rows.examples]
    among[groups[:, None] == groups] = -np.inf
    nearest = np.maximum.reduceat(among, rows.starts[:-1], axis=1)
    return np.where(np.isfinite(nearest), nearest, 0.0)
