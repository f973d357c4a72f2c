"""Learning from many examples: what each says of the others is told by some of them alone, the landmarks (Nyström).

A text is scored in the same way as with few examples, so nothing else knows of it.
"""

from __future__ import annotations

import numpy as np

from largeforge.router.learnt import FEW, NEAREST_SHARE, Cheap, Full, Learnt, radial, terms_share
from largeforge.router.ridge import RIDGE, Matrix, calibrated
from largeforge.router.rows import NEGATIVE, NOBODY, Rows, Vectors, products, targets_of, weights
from largeforge.router.terms import Floats, Indices, Vocabulary

LANDMARKS = 768
"""Each expert has its part of them; the generic sentences come on top."""

FEWEST_JUDGED = 100
"""Examples that are no landmarks, for a calibration by them alone."""


def learn(rows: Rows, words: Vocabulary, vectors: Vectors, embeddings: Floats | None) -> Learnt:
    """As `fit.learn`."""
    marks, starts = _landmarks(rows)
    terms = products(vectors, marks)
    cosines = embeddings @ embeddings[marks].T if embeddings is not None else None
    # A landmark that is left out is still a landmark, and looks too good: the others are judged by.
    others = np.setdiff1d(np.arange(rows.examples), marks)
    if len(others) < FEWEST_JUDGED:
        others = np.arange(rows.examples)
    owners = rows.owners[others]
    of_marks = [vectors[mark] for mark in marks]
    duals, scores = _fitted(terms, marks, rows)
    cheap = Cheap(words, weights(of_marks, duals, words), calibrated(scores[others], owners, top=1.0))
    full = None
    if embeddings is not None and cosines is not None:
        share = terms_share(rows.fewest)
        duals, scores = _fitted(np.float32(share) * terms + radial(cosines), marks, rows)
        scores += NEAREST_SHARE * _nearest_other(cosines, marks, starts, rows.examples)
        full = Full(
            words=words,
            weights=weights(of_marks, share * duals, words),
            rows=np.ascontiguousarray(embeddings[marks], dtype=np.float32),
            duals=duals.astype(np.float32),
            starts=starts,
            worth=calibrated(scores[others], owners, top=1 + NEAREST_SHARE),
        )
    return Learnt(rows.experts, cheap, full, rows.fewest < FEW, scores.argmax(axis=1))


def _fitted(features: Floats, marks: Indices, rows: Rows) -> tuple[Matrix, Matrix]:
    """What each landmark says of each expert, and the examples' left-out scores."""
    targets = targets_of(rows).astype(np.float32)
    among = features[marks].astype(np.float64)
    # A landmark that is nearly another one must not divide by nothing.
    penalty = RIDGE * (among + 1e-3 * np.eye(len(marks)))
    inverse = np.linalg.inv((features.T @ features).astype(np.float64) + penalty)
    negative = np.flatnonzero(rows.owners < NOBODY)
    if len(negative):
        # Of the other experts it says nothing: they keep what they think of it.
        targets[negative] = features[negative] @ (inverse @ (features.T @ targets))
        targets[negative, -2 - rows.owners[negative]] = NEGATIVE
    found: Matrix = inverse @ (features.T @ targets)
    mine, goal = features[: rows.examples], targets[: rows.examples]
    # How much each row decides of its own score.
    influence = np.einsum("ij,ij->i", mine @ inverse.astype(np.float32), mine)[:, None]
    scores: Matrix = goal - (goal - mine @ found) / np.maximum(1 - influence, 0.01)
    return found, scores


def _landmarks(rows: Rows) -> tuple[Indices, Indices]:
    """Rows of each expert, evenly, then all that belong to nobody; and where those of each expert begin."""
    each = max(1, LANDMARKS // len(rows.experts))
    chosen = [
        np.unique(np.linspace(begin, end - 1, min(each, end - begin)).astype(np.intp))
        for begin, end in zip(rows.starts[:-1], rows.starts[1:], strict=True)
    ]
    starts = np.concatenate(([0], np.cumsum([len(found) for found in chosen])))
    return np.concatenate([*chosen, rows.nobody]), starts


def _nearest_other(cosines: Floats, marks: Indices, starts: Indices, examples: int) -> Floats:
    """For each example its likeness to the nearest landmark of each expert that is not itself."""
    among = cosines[:examples, : starts[-1]].copy()
    among[marks[: starts[-1]], np.arange(starts[-1])] = -1.0
    return np.maximum.reduceat(among, starts[:-1], axis=1)
