"""A picture of the result: a bar for each figure beside its target."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

TARGETS = (
    ("child_p50_ms", "created → child created, ms, median", 100.0, False),
    ("child_p99_ms", "created → child created, ms, 99 of 100", 400.0, False),
    ("burst_children_per_second", "children a second in the burst: more is better", 20.0, True),
    ("life_writes", "writes in a FineTuneJob's life", 10.0, False),
    ("resync_writes", "writes in a resync", 0.0, False),
    ("idle_requests_per_second", "requests a second, idle", 0.2, False),
    ("idle_cpu_percent", "CPU, % of a core, idle", 1.0, False),
    ("memory_empty_mb", "memory, MB, empty", 90.0, False),
    ("memory_mb", "memory, MB, with the objects", 140.0, False),
    ("memory_and_foreign_mb", "memory, MB, with those of others too", 145.0, False),
    ("start_seconds", "start → ready, s, with the objects", 10.0, False),
)
"""Figure, title, target, and whether more is better (docs/performance.md of the project's pages)."""
ROW, LEFT, WIDTH = 16, 120, 760


def draw(subjects: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as SVG: ours, red where it misses the target, then the yardstick and the target."""
    parts: list[str] = []
    y = 10
    for name, title, target, more in TARGETS:
        rows = [(subject, found[name]) for subject, found in subjects.items() if name in found]
        if not rows:
            continue
        longest = max(*(value for _, value in rows), target, 1e-9)
        parts.append(f'<text x="0" y="{y + 12}" font-weight="bold">{escape(title)}</text>')
        y += 20
        for subject, value in [*rows, ("target", target)]:
            width = max(1.0, value / longest * (WIDTH - LEFT - 90))
            missed = subject == "largeforge" and (value < target if more else value > target)
            colour = "#c92a2a" if missed else "#2b8a3e" if subject == "largeforge" else "#868e96"
            parts.append(
                f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(subject)}</text>'
                f'<rect x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{ROW - 4}" fill="{colour}"/>'
                f'<text x="{LEFT + width + 6:.1f}" y="{y + 12}">{value:,.2f}</text>'
            )
            y += ROW
        y += 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
