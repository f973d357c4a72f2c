"""What a client's connection asks of the router: whether it may come in, and who answers its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from largeforge.router.http1 import Header
from largeforge.router.openai import ApiError
from largeforge.router.settings import Settings

if TYPE_CHECKING:
    from largeforge.router.protocol import ClientConnection


class Request:
    """A request that was read whole."""

    __slots__ = ("body", "client", "headers", "method", "path")

    def __init__(self, method: bytes, path: bytes, headers: list[Header], body: bytes, client: str) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.client = client


class Running(Protocol):
    """A request that is being answered by an engine, or decided."""

    @property
    def deadline(self) -> float:
        """When to `expire` it."""
        ...

    def cancel(self) -> None:
        """The client is gone."""

    def pause(self) -> None:
        """The client does not read."""

    def resume(self) -> None:
        """The client reads again."""

    def expire(self) -> None:
        """The deadline has passed."""


class Service(Protocol):
    """What answers."""

    settings: Settings
    draining: bool

    def opened(self, connection: ClientConnection) -> ApiError | None:
        """A client has connected; the error where there is no room for it."""
        ...

    def closed(self, connection: ClientConnection) -> None:
        """A client has gone."""

    def admit(self, connection: ClientConnection, headers: list[Header]) -> str:
        """The client's name, whose request counts until `leave`; or an `ApiError`."""
        ...

    def public(self, method: bytes, path: bytes) -> bool:
        """Whether anybody may ask for that."""
        ...

    def leave(self, client: str) -> None:
        """A request that was admitted has ended."""

    def handle(self, connection: ClientConnection, request: Request) -> Running | None:
        """Answer by `respond`, or return what will answer; or raise an `ApiError`."""
        ...

    def refused(self, error: ApiError) -> None:
        """A request was refused before it reached `handle`."""
