"""Rows as aligned columns, the last one as long as it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

STYLES = {
    "Ready": "green",
    "Complete": "green",
    "Failed": "red",
    "Stalled": "red",
    "Unreadable": "red",
    "NotReady": "yellow",
    "Suspended": "dim",
    "Stopped": "dim",
}
"""Colours of states; the words say the same."""


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Text]:
    """*rows* below *header*, three spaces apart as kubectl has it."""
    widths = [max(len(each[n]) for each in [header, *rows]) for n in range(len(header))]
    return [_line(each, widths) for each in [header, *rows]]


def _line(cells: Sequence[str], widths: Sequence[int]) -> Text:
    last = len(cells) - 1
    made = Text()
    for n, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        made.append(cell if n == last else f"{cell:<{width}}   ", style=STYLES.get(cell, ""))
    made.rstrip()
    return made
