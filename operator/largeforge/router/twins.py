"""Examples of one expert that are nearly the same, such as a template with other words in it.

What an example would score if it were left out says how an unseen text scores, but not while its twin is still there:
measured with one typo's twin for each example, 88 of 100 unseen texts seemed to be nobody's. So twins are left out
together. Twins of two experts are not: that one takes the other's examples is what must be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from largeforge.router.rows import Rows
from largeforge.router.terms import Indices

ALIKE = 0.8
"""From that cosine on two examples are twins, of their terms or of their embeddings. 0.7 gives the same figures."""


class Twins(NamedTuple):
    """Which rows are left out together, and which tell how unseen texts score."""

    groups: Indices
    """For each row the number of its group; most are alone."""
    judged: Indices
    """The examples but those of which more than half of their expert's are twins: leaving those out leaves no expert,
    and leaving one out tells nothing. All, where there are no others."""


def twins(rows: Rows, alike: Callable[[int, int], npt.NDArray[Any]]) -> Twins:
    """The twins among the examples; *alike* has the likeness of each to each, from one row to another."""
    groups = np.arange(len(rows.texts))
    judged = np.ones(rows.examples, dtype=bool)
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        found = _linked(alike(begin, end) >= ALIKE)
        size = np.bincount(found, minlength=end - begin)[found]
        many = 2 * size > end - begin
        many &= size > 1
        judged[begin:end] = ~many
        groups[begin:end] = begin + np.where(many, np.arange(end - begin), found)
    return Twins(groups, np.flatnonzero(judged) if judged.any() else np.arange(rows.examples))


def _linked(near: npt.NDArray[np.bool_]) -> Indices:
    """For each row the first one that it is linked to, over however many others."""
    count = len(near)
    near = near | np.eye(count, dtype=bool)
    first: Indices = np.arange(count)
    while True:
        found: Indices = np.where(near, first, count).min(axis=1)
        found = np.minimum(found, found[found])
        if (found == first).all():
            return found
        first = found
