"""Regular expressions in a text, of all experts at once, by an engine whose time is linear in the text.

Linear, but times the size of the patterns where a text is made for it; so both have a bound. Measured on 2,048
characters made for them: 0.1 ms for four patterns as people write them, 5 ms for all that one expert may have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

ENDS = 1024
"""Characters at each end of a text that are looked at; pieces of text that are long cost too much."""
MOST_INSTRUCTIONS = 512
"""Of a compiled pattern. `.{1,40}` has about 450, a word as many as letters."""

MOST_TOGETHER = 1024
"""Of the patterns of one expert: two of `.{1,40}` have 800; sixteen like `ORA-[0-9]{5}` 400."""


def faults(patterns: Sequence[str]) -> list[str | None]:
    """Why each of the patterns of one expert cannot be used, in their order; None of those that can."""
    found: list[str | None] = []
    together = 0
    for pattern in patterns:
        why = fault(pattern)
        size = 0 if why else _size(pattern)
        if together + size > MOST_TOGETHER:
            why = (
                f"those of one Expert are too large together: at most {MOST_TOGETHER} instructions"
                f" (this one makes it {together + size}); repeat less, or write a Word or Literal"
            )
        else:
            together += size
        found.append(why)
    return found


@lru_cache(maxsize=4096)
def _size(pattern: str) -> int:
    size: int = _engine().compile(pattern, _options()).programsize
    return size


@lru_cache(maxsize=4096)
def fault(pattern: str) -> str | None:
    """Why *pattern* cannot be used; None where it can."""
    engine = _engine()
    try:
        compiled = engine.compile(pattern, _options())
    except engine.error as error:
        return f"RE2 says: {_text(error)}"
    if compiled.search("") is not None:
        return "it matches the empty text, so every message"
    if compiled.programsize > MOST_INSTRUCTIONS:
        return f"it is too large: at most {MOST_INSTRUCTIONS} instructions (got {compiled.programsize}); repeat less"
    return None


class Expressions:
    """Usable patterns (`fault`), upper and lower case the same."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._set: Any = None
        if patterns:
            self._set = _engine().Set.SearchSet(_options())
            for pattern in patterns:
                self._set.Add(pattern)
            self._set.Compile()

    def __bool__(self) -> bool:
        return self._set is not None

    def within(self, text: str) -> list[str]:
        """The patterns that are found in *text*."""
        if len(text) > 2 * ENDS:
            text = f"{text[:ENDS]}\n{text[-ENDS:]}"
        # Half of a surrogate pair may come from JSON, and is no UTF-8.
        found = self._set.Match(text.encode(errors="replace"))
        return [self._patterns[index] for index in found or ()]


def _engine() -> Any:
    import re2  # a router without such patterns does not need it

    return re2


def _options() -> Any:
    options = _engine().Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 64 * 1024 * 1024
    return options


def _text(error: Exception) -> str:
    found = error.args[0] if error.args else ""
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)
