"""One connection to an engine, on llhttp: a request out, and its response handed on as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import httptools

from largeforge.router.http1 import Header, head_end
from largeforge.router.usage import PIECES

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_INTERIM_RESPONSES = 8
COPY_BYTES = 16 * 1024
"""Below this, copying the parts together costs less than a gathering write."""


class Owner(Protocol):
    """Who waits for the response."""

    def on_response(self, upstream: Upstream, first: bytes) -> Callable[[bytes], object] | None:
        """The head is complete, and *first* of the body has come with it.

        Returns where further bytes of the body go, or None where the owner wants no more of it and has abandoned it.
        """

    def on_end(self) -> None:
        """The response is complete; the connection belongs to nobody."""

    def on_lost(self, upstream: Upstream, why: str) -> None:
        """The response will never be complete; the connection is closed."""


class Upstream(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self, on_idle: Callable[[Upstream], None], on_closed: Callable[[Upstream], None]) -> None:
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._owner: Owner | None = None
        self._write: Callable[[bytes], object] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport
        self._open = False
        self.reused = False
        """Whether it has carried a response before, so that the engine may just be closing it."""
        self.idle_since = 0.0
        self.last: deque[bytes] = deque(maxlen=PIECES)
        """The last pieces of the body as they came: who counts tokens looks there."""
        self._reset()

    def _reset(self) -> None:
        self.received = False
        """Whether a byte of the response has come."""
        self.status = 0
        self.headers: list[Header] = []
        self.chunked = False
        self.until_close = False
        """Whether only the connection's end marks the body's."""
        self._tail = b""
        self._head_bytes = 0
        self._head_complete = False
        self._interim = 0
        self._complete = False
        self._keep_alive = False
        self._surplus = False
        self.pieces = 0
        """How many of the body have come."""
        self.first_at = 0.0
        """When the first of them came."""
        self.last.clear()
        self.silent = False
        """Whether nothing has come since `listen`."""
        self._listening = False

    def send(self, owner: Owner, parts: list[bytes | memoryview]) -> None:
        """Send a request; *owner* gets exactly one of `on_end` and `on_lost`, unless it calls `abandon`."""
        self._reset()
        self._owner = owner
        if sum(map(len, parts)) < COPY_BYTES:
            self.transport.write(b"".join(parts))
        else:
            self.transport.writelines(parts)

    def abandon(self) -> None:
        """Close at once; nobody is told."""
        self._owner = self._write = None
        if self._open:
            self.transport.abort()

    def listen(self) -> None:
        """Learn by `silent` whether anything comes from here on; costs one call, not one for each chunk."""
        self.silent = True
        write = self._write
        if write is None or self._listening:
            return
        self._listening = True

        def heard(data: bytes) -> object:
            self.silent = self._listening = False
            self._write = write
            return write(data)

        self._write = heard

    def pause(self) -> None:
        """Let what comes wait in the kernel, and so in the engine."""
        if self._open and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """Take what comes."""
        if self._open and not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Hand the body's bytes on as they are; llhttp only looks for its end."""
        owner = self._owner
        if owner is None:
            self.transport.abort()  # an engine that speaks unasked
            return
        try:
            if not self._head_complete:
                data = self._read_head(data)
                if not self._head_complete:
                    return
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lose(f"the engine's response is not HTTP: {error}")
            return
        if self._surplus:
            self._lose("the engine sent more than its response")
            return
        data = self._payload(data)
        if data:
            if not self.pieces:
                self.first_at = monotonic()
            self.pieces += 1
            self.last.append(data)
        if self._write is None:
            self._write = owner.on_response(self, data)
        else:
            self._write(data)
        if self._complete and self._owner is not None:
            self._finish()

    def _payload(self, data: bytes) -> bytes:
        """What the client gets of *data*."""
        return data

    def _read_head(self, data: bytes) -> bytes:
        """Read a head that may come in pieces, and skip interim ones; what follows the head is returned."""
        self.received = True
        while data:
            end = head_end(self._tail, data, 0)
            piece = data if end < 0 else data[:end]
            self._head_bytes += len(piece)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise httptools.HttpParserError("the head is too long")
            self._parser.feed_data(piece)
            if self._head_complete is not (end >= 0):
                raise httptools.HttpParserError("the head does not end with an empty line")
            if end < 0:
                self._tail = (self._tail + piece)[-3:]
                return b""
            data = data[end:]
            if self.status >= 200:
                self._check_framing()
                return data
            self._interim += 1
            if self._interim > MAX_INTERIM_RESPONSES:
                raise httptools.HttpParserError("too many interim responses")
            self._tail, self.headers, self._head_complete, self._complete = b"", [], False, False
        return b""

    def _check_framing(self) -> None:
        """How the body ends."""
        if len(self.headers) > MAX_HEADERS:
            raise httptools.HttpParserError("the head has too many fields")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise httptools.HttpParserError("only HTTP/1.1 and HTTP/1.0 are understood")
        has_length = False
        for name, value in self.headers:
            if name == b"content-length":
                has_length = True
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or self.chunked or version == "1.0":
                    raise httptools.HttpParserError("the only transfer encoding is chunked, once, in HTTP/1.1")
                self.chunked = True
        self.until_close = not self._complete and not self.chunked and not has_length

    def _finish(self) -> None:
        """The response is complete: back to the pool, if the connection may carry another."""
        owner, self._owner, self._write = self._owner, None, None
        if self._keep_alive and not self.transport.get_write_buffer_size():
            self.resume()
            self.reused = True
            self._on_idle(self)
        else:
            self.transport.close()
        if owner is not None:
            owner.on_end()

    def _lose(self, why: str) -> None:
        owner, self._owner, self._write = self._owner, None, None
        self.transport.abort()
        if owner is not None:
            owner.on_lost(self, why)

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]
        self._open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, who may have waited for just that."""
        self._open = False
        self._on_closed(self)
        owner, self._owner, self._write = self._owner, None, None
        if owner is None:
            return
        if self.until_close and exc is None:
            owner.on_end()
        else:
            owner.on_lost(self, "the engine closed the connection")

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """A message after the end of ours is none that we asked for."""
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect the head's fields; trailers travel with the raw bytes."""
        if not self._head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Keep the status."""
        self.status = self._parser.get_status_code()
        self._head_complete = True

    def on_message_complete(self) -> None:
        """Read now what llhttp forgets after this callback."""
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()


class DechunkedUpstream(Upstream):
    """For clients that speak HTTP/1.0 and know no chunks: hands on the body alone, and carries one request only."""

    def _reset(self) -> None:
        super()._reset()
        self._decoded: list[bytes] = []

    def _payload(self, data: bytes) -> bytes:  # noqa: ARG002 - its content was taken by `on_body`
        decoded = b"".join(self._decoded)
        self._decoded.clear()
        return decoded

    def on_body(self, body: bytes) -> None:
        """Take what was in the chunk."""
        self._decoded.append(body)

    def on_message_complete(self) -> None:
        """Never back to the pool."""
        super().on_message_complete()
        self._keep_alive = False
