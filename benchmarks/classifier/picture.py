"""A picture of the result: accuracy and out-of-scope recall over the number of examples, a bar for each subject."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

SHOWN = (
    ("accuracy", "accuracy, %: more is better"),
    ("oosRecallAt3", "out-of-scope recall at 3 % false abstention, %: more is better"),
)
COLOURS = {
    "largeforge": "#d9480f",
    "largeforge without a model": "#f4a261",
    "nearest example": "#868e96",
    "TF-IDF": "#adb5bd",
}
ROW, LEFT, WIDTH = 16, 230, 760


def draw(quality: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The figures as SVG."""
    parts: list[str] = []
    y = 10
    for figure, title in SHOWN:
        parts.append(f'<text x="0" y="{y + 12}" font-weight="bold">{escape(title)}</text>')
        y += 24
        for size, subjects in quality.items():
            for name, found in subjects.items():
                value = float(found[figure])
                width = max(1.0, value / 100 * (WIDTH - LEFT - 60))
                parts.append(
                    f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}, {escape(size)}</text>'
                    f'<rect x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{ROW - 4}" fill="{COLOURS[name]}"/>'
                    f'<text x="{LEFT + width + 6:.1f}" y="{y + 12}">{value:.1f}</text>'
                )
                y += ROW
            y += ROW // 2
        y += ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
