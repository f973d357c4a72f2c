"""The operator's log: one line for each record, redacted, with the object that was looked at when it was written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

from largeforge.api.redact import redact

Format = Literal["json", "text"]
MESSAGE_LIMIT = 4096
TRACE_LINES = 60
"""The last ones: they have the error and where it came from."""

_looked_at: ContextVar[dict[str, str] | None] = ContextVar("looked_at", default=None)


@contextmanager
def about(kind: str, namespace: str, name: str) -> Iterator[None]:
    """Let all that is logged within, and in the tasks that begin there, name this object."""
    token = _looked_at.set({"kind": kind, "namespace": namespace, "name": name})
    try:
        yield
    finally:
        _looked_at.reset(token)


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message"}`, with `kind`, `namespace` and `name` of an object, and `trace`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage(), limit=MESSAGE_LIMIT),
            **(_looked_at.get() or {}),
        }
        if record.exc_info:
            entry["trace"] = "\n".join(_trace(self.formatException(record.exc_info)))
        return json.dumps(entry, ensure_ascii=False)


class TextLines(logging.Formatter):
    """For people: time, level, logger, message, and the trace below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines."""
        message = redact(record.getMessage(), limit=MESSAGE_LIMIT)
        first = f"{self.formatTime(record)} {record.levelname} {record.name}: {message}"
        return "\n".join([first, *(_trace(self.formatException(record.exc_info)) if record.exc_info else ())])


def _trace(text: str) -> list[str]:
    """The lines of an exception's *text*, each redacted; their indentation stays."""
    lines = text.splitlines()[-TRACE_LINES:]
    return [line[: len(line) - len(line.lstrip())] + redact(line) for line in lines]


def set_up(how: Format) -> None:
    """Write all records of this process to standard error as *how* says."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if how == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
