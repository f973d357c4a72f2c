"""Learning from many examples: what each says of the others is told by some of them alone, the landmarks (Nyström).

A text is scored in the same way as with few examples, so nothing else knows of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from largeforge.router.learnt import FEW, NEAREST_SHARE, Cheap, Full, Learnt, radial, terms_share
from largeforge.router.products import Vectors, among, products
from largeforge.router.ridge import RIDGE, Matrix, calibrated, together
from largeforge.router.rows import NEGATIVE, NOBODY, Rows, targets_of, weights
from largeforge.router.terms import Floats, Indices, Vocabulary
from largeforge.router.twins import twins

LANDMARKS = 768
"""Each expert has its part of them; the generic sentences come on top."""

FEWEST_JUDGED = 100
"""Examples that are no landmarks, for a calibration by them alone."""


def learn(rows: Rows, words: Vocabulary, vectors: Vectors, embeddings: Floats | None) -> Learnt:
    """As `fit.learn`."""
    marks, starts = _landmarks(rows)
    terms = products(vectors, marks)
    cosines = embeddings @ embeddings[marks].T if embeddings is not None else None
    of_twins = twins(rows, _likeness(vectors, embeddings))
    # A landmark that is left out is still a landmark, and looks too good, as do its twins: the others are judged by.
    others = np.flatnonzero(~np.isin(of_twins.groups[: rows.examples], of_twins.groups[marks]))
    others = np.intersect1d(others, of_twins.judged)
    if len(others) < FEWEST_JUDGED:
        others = np.arange(rows.examples)
    owners = rows.owners[others]
    of_marks = [vectors[mark] for mark in marks]
    duals, scores = _fitted(terms, marks, rows, of_twins.groups)
    cheap = Cheap(weights(of_marks, duals, words), calibrated(scores[others], owners, top=1.0))
    full = None
    if embeddings is not None and cosines is not None:
        share = terms_share(rows.fewest)
        duals, scores = _fitted(np.float32(share) * terms + radial(cosines), marks, rows, of_twins.groups)
        scores += NEAREST_SHARE * _nearest_other(cosines, marks, starts, of_twins.groups[: rows.examples])
        full = Full(
            weights=weights(of_marks, share * duals, words),
            rows=np.ascontiguousarray(embeddings[marks], dtype=np.float32),
            duals=duals.astype(np.float32),
            starts=starts,
            worth=calibrated(scores[others], owners, top=1 + NEAREST_SHARE),
        )
    return Learnt(rows.experts, words, cheap, full, rows.fewest < FEW, scores.argmax(axis=1))


def _likeness(vectors: Vectors, embeddings: Floats | None) -> Callable[[int, int], Floats]:
    """The likeness of some rows to each other."""

    def alike(begin: int, end: int) -> Floats:
        by_terms = among(vectors[begin:end])
        if embeddings is None:
            return by_terms
        found: Floats = np.maximum(by_terms, embeddings[begin:end] @ embeddings[begin:end].T)
        return found

    return alike


def _fitted(features: Floats, marks: Indices, rows: Rows, groups: Indices) -> tuple[Matrix, Matrix]:
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
    # How much each row decides of its own score, and of those of its twins.
    through = mine @ inverse.astype(np.float32)
    missed = goal - mine @ found.astype(np.float32)  # numpy would make a copy of all features in float64
    scores: Matrix = goal - missed / np.maximum(1 - np.einsum("ij,ij->i", through, mine)[:, None], 0.01)
    for group in together(groups[: rows.examples]):
        shared = (through[group] @ mine[group].T).astype(np.float64)
        rest = 1.01 * np.eye(len(group)) - shared  # a little more than nothing, as above
        scores[group] = goal[group] - np.linalg.solve(rest, missed[group])
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


def _nearest_other(cosines: Floats, marks: Indices, starts: Indices, groups: Indices) -> Floats:
    """For each example its likeness to the nearest landmark of each expert that is neither itself nor a twin."""
    among = np.where(groups[:, None] == groups[marks[: starts[-1]]], -1.0, cosines[: len(groups), : starts[-1]])
    return np.maximum.reduceat(among, starts[:-1], axis=1)
