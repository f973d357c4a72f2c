"""Kernel ridge regression onto one column for each expert, its leave-one-out scores, and what is calibrated from them.

All in closed form, so the same examples always give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from largeforge.router.terms import Floats, Indices

Matrix = npt.NDArray[np.float64]

RIDGE = 0.15
FALSE_ABSTENTION = 0.03
"""The share of the examples that may score too little when they are left out."""
CLEAR_ACCURACY = 0.99
"""Of the examples whose lead is clear, when they are left out; it takes 50 of them to know."""
MISTAKES_CLEAR = 0.02
"""Of the left-out examples that go wrong, how many may have a clear lead: experts that are easy to tell say nothing of
the others."""
NEVER = 1e9
"""No lead is as large."""
LOWEST_CUT = 0.05
"""So that few examples, of which none is like another, do not make everything fit."""


def coefficients(kernel: Matrix, targets: Matrix) -> Matrix:
    """What each row says of each column."""
    return np.asarray(np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets), dtype=np.float64)


def left_out(kernel: Matrix, targets: Matrix, groups: Indices) -> tuple[Matrix, Matrix]:
    """The coefficients, and what each row would score if it were left out with its group."""
    inverse = np.linalg.inv(kernel + RIDGE * np.eye(len(kernel)))
    found = inverse @ targets
    scores = targets - found / np.diag(inverse)[:, None]
    for group in together(groups):
        scores[group] = targets[group] - np.linalg.solve(inverse[np.ix_(group, group)], found[group])
    return found, scores


def together(groups: Indices) -> list[Indices]:
    """The rows of each group that has more than one."""
    order = np.argsort(groups, kind="stable")
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    return [group for group in np.split(order, bounds) if len(group) > 1]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a raw score is worth."""

    cut: float
    """The raw score that is worth 0.5: all but 3 of 100 examples reach it when they are left out."""
    top: float
    """The raw score that is worth 1."""
    clear: float
    """The lead over the second from which on 99 of 100 left-out examples are right; `NEVER` where none is known."""

    def worth(self, raw: Floats) -> Matrix:
        """From 0 to 1: 0.5 at the cut, straight below and above."""
        below = raw / (2 * self.cut)
        above = 0.5 + (raw - self.cut) / (2 * (self.top - self.cut))
        # Four decimals: beyond the sixth, processors and numbers of threads differ.
        return np.clip(np.where(raw < self.cut, below, above), 0.0, 1.0).astype(np.float64).round(4)

    def never_clear(self) -> Calibration:
        """The same, but no lead is clear."""
        return replace(self, clear=NEVER)


def calibrated(scores: Matrix, owners: Indices, *, top: float) -> Calibration:
    """From the examples' left-out scores and the column that each belongs to."""
    best = scores.max(axis=1)
    cut = float(np.quantile(best, FALSE_ABSTENTION, method="lower"))
    return Calibration(min(max(cut, LOWEST_CUT), top - LOWEST_CUT), top, _clear_lead(scores, owners))


def lead(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """By how much the best of each row is before the second; before nothing where that is below."""
    if scores.shape[-1] == 1:
        return scores[..., 0]
    two = np.partition(scores, -2, axis=-1)[..., -2:]
    return two[..., 1] - np.maximum(two[..., 0], 0.0)


def _clear_lead(scores: Matrix, owners: Indices) -> float:
    leads = lead(scores)
    order = np.argsort(-leads, kind="stable")
    wrong = np.cumsum((scores.argmax(axis=1) != owners)[order])
    # Half a mistake more than was seen: with few examples none is a proof of nothing.
    sure = np.flatnonzero(wrong + 0.5 <= (1 - CLEAR_ACCURACY) * np.arange(1, len(order) + 1))
    if not len(sure):
        return NEVER
    mistaken = leads[scores.argmax(axis=1) != owners]
    seldom = float(np.quantile(mistaken, 1 - MISTAKES_CLEAR, method="higher")) if len(mistaken) else 0.0
    return max(float(leads[order[sure[-1]]]), seldom)
