"""What an exchange stands between: the client that is answered, and the request that is sent to an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from largeforge.router.openai import ApiError
from largeforge.router.resolve import Decision

_LAST_EVENT = 64


class Client(Protocol):
    """The connection that is answered."""

    writable: bool

    @property
    def http10(self) -> bool:
        """Whether it speaks HTTP/1.0."""
        ...

    def begin(self, head: bytes, first: bytes, *, until_close: bool) -> Callable[[bytes], object]:
        """Send a response's head, to which the connection adds its own lines, and the first of its body.

        Returns where the rest of the body goes.
        """
        ...

    def end(self) -> None:
        """The response is complete."""
        ...

    def cut(self) -> None:
        """End the connection so that the client sees that the response is not complete."""
        ...

    def fail(self, error: ApiError, headers: bytes) -> None:
        """Answer with an error instead."""
        ...


class Request(Protocol):
    """What is sent, but for the line with the host."""

    decision: Decision
    key: int | None
    """The conversation, where it matters which pod it goes to."""

    def renew(self) -> bool:
        """Take the name's route of now; False where its client has none any more."""
        ...

    def parts(self, host_line: bytes) -> list[bytes | memoryview]:
        """The bytes for one pod."""
        ...


class Unframed:
    """Where an event stream goes that only the connection's end ends, as it does a broken one: its last event tells."""

    def __init__(self, write: Callable[[bytes], object], first: bytes) -> None:
        self._write = write
        self._last = first[-_LAST_EVENT:]

    def __call__(self, data: bytes) -> object:
        """Hand on."""
        self._last = (self._last + data)[-_LAST_EVENT:]
        return self._write(data)

    @property
    def complete(self) -> bool:
        """Whether the last event is the one that says so."""
        return self._last.rstrip().endswith(b"[DONE]")
