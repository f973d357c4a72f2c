"""Clients that send prepared bytes and note when what comes back."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END = b"0\r\n\r\n"
PROMPT = "please write about this topic in some words, and a little more of it than that. "


def request(  # noqa: PLR0913 - what a request is made of
    headers: Mapping[str, str],
    model: str,
    *,
    size: int = 1000,
    stream: bool = False,
    pieces: int = 64,
    every_ms: int = 0,
    mark: int | None = None,
) -> bytes:
    """A chat of about *size* bytes; the keyword of one expert stands in its midst."""
    text = (PROMPT * (size // len(PROMPT) + 1))[: max(0, size - 260)]
    half = text.find(" ", len(text) // 2) + 1
    text = f"{text[:half]}keyword7x7 {text[half:]}"
    if mark is not None:
        text = f"mark-{mark}- {text}"
    body = json.dumps(
        {
            "model": model,
            "stream": stream,
            "messages": [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": text}],
            "temperature": 0.2,
            "max_tokens": pieces,
            "seed": every_ms,
        }
    ).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{lines}"
        f"Accept: application/json\r\nUser-Agent: benchmark\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class LoadError(Exception):
    """An answer is none, or not what was asked for."""


class Client(asyncio.Protocol):
    """One connection that sends *data* again and again, until *until* or *count* answers."""

    def __init__(self, data: bytes, *, until: float, count: int = 0) -> None:
        self._data = data
        self._until = until
        self._count = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.seconds: list[float] = []
        """Of each answer."""
        self.firsts: list[float] = []
        """Until the first piece of each stream."""
        self.gaps: list[float] = []
        """Between pieces."""
        self.pieces = 0
        self._transport: asyncio.Transport
        self._begin()

    def _begin(self) -> None:
        self._head = b""
        self._needed = -1
        self._chunked = False
        self._tail = b""
        self._got = 0
        self._last_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first."""
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        """Look for the end."""
        if self._needed < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end], self._head[end + 4 :]
            if not head.startswith(b"HTTP/1.1 200"):
                self._fail(LoadError(self._head[:300].decode("latin-1")))
                return
            length = _LENGTH.search(head)
            self._chunked = length is None
            self._needed = int(length[1]) if length is not None else 0
        self._got += len(data)
        if self._chunked:
            if b"data: {" in data:
                self._piece(data.count(b"data: {"))
            self._tail = (self._tail + data)[-len(_END) :]
            if self._tail == _END:
                self._answered()
        elif self._got >= self._needed:
            self._answered()

    def _piece(self, count: int) -> None:
        now = time.perf_counter()
        if self._last_at:
            self.gaps.append(now - self._last_at)
        else:
            self.firsts.append(now - self._began)
        self._last_at = now
        self.pieces += count

    def _answered(self) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        if (now < self._until) if not self._count else (len(self.seconds) < self._count):
            self._begin()
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end, this is a failure."""
        if not self.done.done():
            self.done.set_exception(exc or LoadError("closed before the answer was complete"))


@dataclass
class Result:
    """What some clients saw together."""

    elapsed: float
    seconds: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    pieces: int = 0


async def together(  # noqa: PLR0913 - how many of whom, and for how long
    port: int, data: bytes, *, clients: int, seconds: float = 0.0, count: int = 0, apart: float = 0.0
) -> Result:
    """*clients* at once, the next after *apart* seconds, for so long or so many answers each."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made: list[Client] = []
    try:
        async with asyncio.timeout(seconds + 60):
            for _ in range(clients):
                _, client = await loop.create_connection(
                    lambda: Client(data, until=began + seconds, count=count), "127.0.0.1", port
                )
                made.append(client)
                if apart:
                    await asyncio.sleep(apart)
            await asyncio.gather(*(client.done for client in made))
    finally:
        for client in made:
            if not client.done.done():
                client.done.cancel()
    result = Result(time.perf_counter() - began)
    for client in made:
        result.seconds += client.seconds
        result.firsts += client.firsts
        result.gaps += client.gaps
        result.pieces += client.pieces
    return result


def quantile(values: list[float], share: float) -> float:
    """The value that *share* of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
