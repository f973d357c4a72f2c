"""What is wrong with a row, in words that hold nothing of its content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_VALUE = 32
"""Characters of a type or an enum value that a message may show; nothing else of the content is ever shown."""
_SHOWN_NAMES = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be trained on."""

    path: str
    """Where in the row, for example `messages[2].role`; empty for the whole row."""
    text: str
    empty_answer: bool = False
    """Whether all that is wrong is that there is nothing to learn."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


class RowError(Exception):
    """A row that cannot be trained on."""

    def __init__(self, path: str, text: str, *, empty_answer: bool = False) -> None:
        super().__init__(text)
        self.problem = Problem(path, text, empty_answer)


def kind_of(value: object) -> str:
    """JSON's word for the type of *value*."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__[:SHOWN_VALUE])


def shown(value: str) -> str:
    """An enum value or a column's name, quoted and cut."""
    return json.dumps(value[:SHOWN_VALUE])


def columns_of(names: Sequence[str]) -> str:
    """The names of columns for a message, the first few."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return (", ".join(shown(name) for name in names[:_SHOWN_NAMES]) or "none") + more
