"""A line of points as characters: two columns and four rows of dots in each. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[int, float]

_BLANK = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of a Braille character's dots, by column and row from the top."""
LABEL = 7
"""Characters of the figures on the left."""


def plot(points: Sequence[Point], *, width: int, height: int) -> list[str]:
    """*points* as *height* lines of *width* characters at most, the highest and lowest value beside them.

    Each column of dots shows the mean of its points; where a column has none, the line is drawn on from its neighbours.
    Values that are no number are left out.
    """
    known = [(step, value) for step, value in points if math.isfinite(value)]
    columns, rows = 2 * (width - LABEL - 2), 4 * height
    if len(known) < 2 or columns < 2:
        return []
    first, last = known[0][0], known[-1][0]
    sums: dict[int, list[float]] = {}
    for step, value in known:
        column = round((step - first) / max(1, last - first) * (columns - 1))
        sums.setdefault(column, []).append(value)
    line = _joined({column: sum(values) / len(values) for column, values in sums.items()}, columns)
    low, high = min(line), max(line)
    spread = high - low or 1.0
    heights = [round((high - value) / spread * (rows - 1)) for value in line]
    return [
        f"{_label(n, height, low, high):>{LABEL}} ┤{text}" for n, text in enumerate(_drawn(heights, columns, height))
    ]


def _joined(means: dict[int, float], columns: int) -> list[float]:
    """A value for each column, on straight lines between those that have one."""
    anchors = sorted(means)
    values: list[float] = []
    for column in range(columns):
        left = max((a for a in anchors if a <= column), default=anchors[0])
        right = min((a for a in anchors if a >= column), default=anchors[-1])
        share = (column - left) / (right - left) if right > left else 0.0
        values.append(means[left] + share * (means[right] - means[left]))
    return values


def _drawn(heights: Sequence[int], columns: int, height: int) -> list[str]:
    cells = [[0] * ((columns + 1) // 2) for _ in range(height)]
    for column, at in enumerate(heights):
        before = heights[column - 1] if column else at
        # Steep parts stay one line: the dots between two columns are set in the second.
        for row in range(min(at, before + 1), max(at, before - 1) + 1):
            cells[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    return ["".join(chr(_BLANK + bits) for bits in row) for row in cells]


def _label(line: int, height: int, low: float, high: float) -> str:
    if line == 0:
        return f"{high:.4g}"
    return f"{low:.4g}" if line == height - 1 else ""
