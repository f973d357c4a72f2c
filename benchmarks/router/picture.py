"""A picture of the result: one row of bars for each figure, ours first."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

SHOWN = (
    ("requests_per_second", "requests a second on one core, 16 clients: more is better"),
    ("cpu_us_per_request", "CPU, µs a request: less is better"),
    ("added_latency_p50_ms", "added latency of one client, ms, median: less is better"),
    ("added_ttft_p50_ms", "added time to the first token, 64 streams, ms, median: less is better"),
    ("cpu_us_per_chunk", "CPU, µs a chunk, 64 streams: less is better"),
    ("prompts_per_second", "220 KB prompts a second: more is better"),
    ("kib_per_stream", "memory, KiB a stream, 1,000 open: less is better"),
)
ROW, GAP, LEFT, WIDTH = 16, 34, 120, 760


def draw(routers: Mapping[str, Mapping[str, object]]) -> str:
    """The figures as SVG. A bar that is many times the others is cut, and says its value like the rest."""
    parts: list[str] = []
    y = 10
    for name, title in SHOWN:
        rows = [(router, found[name]) for router, found in routers.items() if isinstance(found.get(name), int | float)]
        rows = [(router, value) for router, value in rows if router != "direct" or name == "requests_per_second"]
        if not rows:
            continue
        longest = _longest([float(value) for _, value in rows])  # type: ignore[arg-type]
        parts.append(f'<text x="0" y="{y + 12}" font-weight="bold">{escape(title)}</text>')
        y += 20
        for router, value in rows:
            number = float(value)  # type: ignore[arg-type]
            width = max(1.0, min(1.0, number / longest) * (WIDTH - LEFT - 90))
            colour = "#d9480f" if router == "largeforge" else "#868e96"
            parts.append(
                f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(router)}</text>'
                f'<rect x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{ROW - 4}" fill="{colour}"/>'
                f'<text x="{LEFT + width + 6:.1f}" y="{y + 12}">{number:,.2f}</text>'
            )
            y += ROW
        y += GAP - ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _longest(values: list[float]) -> float:
    """What the full width stands for: the largest, but not more than six times the middle one."""
    ordered = sorted(values)
    return max(1e-9, min(ordered[-1], 6 * max(ordered[len(ordered) // 2], ordered[-1] / 100)))
