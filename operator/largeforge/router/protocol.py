"""One connection of a client, on llhttp: requests in, one at a time, and their answers out.

llhttp (strict) decides what is valid. Where a head ends is looked for here as well, and a request on which the two
views differ is refused: so no byte of a body can ever be taken for a request. What a client sends while it is being
answered waits, up to the size of one request.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Protocol

import httptools

from largeforge.router.http1 import STATUS_LINES, Header, head_end, keep_alive
from largeforge.router.openai import ApiError
from largeforge.router.settings import Settings

LINGER_SECONDS = 2.0
"""How long a refused client may go on sending, so that it sees the answer and not a reset."""
_NEVER = float("inf")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


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
    """A request that is being answered by an engine."""

    deadline: float

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

    def opened(self, connection: ClientConnection) -> None:
        """A client has connected."""

    def closed(self, connection: ClientConnection) -> None:
        """A client has gone."""

    def authorize(self, headers: list[Header]) -> str:
        """The client's name, or an `ApiError`."""
        ...

    def handle(self, connection: ClientConnection, request: Request) -> Running | None:
        """Answer by `respond`, or return what will answer; or raise an `ApiError`."""
        ...

    def refused(self, error: ApiError) -> None:
        """A request was refused before it reached `handle`."""


class ClientConnection(asyncio.Protocol):
    """A connection, and the request that is being read from it or answered on it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._pending = bytearray()
        self._busy = False
        self._running: Running | None = None
        self._closing = False
        self._until_close = False
        self._overflow = False
        self.writable = True
        self._deadline = _NEVER
        self._reset()

    def _reset(self) -> None:
        self._tail = b""
        self._head_bytes = 0
        self._method = b""
        self._url = b""
        self._headers: list[Header] = []
        self._head_complete = False
        self._complete = False
        self._keep_alive = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._chunked = False
        self._remaining = 0
        self._raw_bytes = 0
        self._surplus = False
        self._client = ""
        self.http10 = False

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = transport  # type: ignore[assignment]
        self._deadline = self._loop.time() + self._settings.head_seconds
        keep_alive(transport)
        self._service.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read on, or keep it for later; a closing connection drops it."""
        if self._closing or self._overflow:
            return
        if self._busy or self._pending or not self.writable:
            self._keep(data)
        else:
            self._consume(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Whatever was under way for this client ends now."""
        self._closing = True
        self._deadline = _NEVER
        self._pending.clear()
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._service.closed(self)

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        self.writable = False
        self._deadline = self._loop.time() + self._settings.write_stall_seconds
        if self._running is not None:
            self._running.pause()

    def resume_writing(self) -> None:
        """The client has read what was waiting."""
        self.writable = True
        if self._closing:
            return
        self._deadline = _NEVER
        if self._running is not None:
            self._running.resume()
        elif not self._busy:
            self._wait()

    # Reading a request

    def _consume(self, data: bytes) -> None:
        at, size = 0, len(data)
        try:
            while at < size and not self._busy and not self._closing and self.writable:
                at = self._read_body(data, at) if self._head_complete else self._read_head(data, at)
        except httptools.HttpParserUpgrade:
            self._refuse(_malformed("Upgrade and CONNECT are not supported"))
        except httptools.HttpParserError as error:
            self._refuse(_malformed(str(error)))
        except ApiError as error:
            self._refuse(error)
        if at < size and not self._closing:
            self._keep(data[at:])

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > self._settings.max_body_bytes + self._settings.max_head_bytes:
            # What follows is lost, so the answer under way is the last.
            self._pending.clear()
            self._overflow = self._surplus = True
            self._keep_alive = False

    def _read_head(self, data: bytes, at: int) -> int:
        begin = at
        if self._head_bytes == 0:
            self._deadline = self._loop.time() + self._settings.head_seconds
            if data.startswith(b"\r\n", at):
                at += 2  # old clients end a body with an empty line (RFC 9112, 2.2)
        end = head_end(self._tail, data, at)
        stop = len(data) if end < 0 else end
        self._head_bytes += stop - begin
        if self._head_bytes > self._settings.max_head_bytes or len(self._headers) > self._settings.max_headers:
            raise ApiError(431, "the request's headers are too long or too many", code="headers_too_large")
        self._parser.feed_data(memoryview(data)[begin:stop])
        if self._head_complete is not (end >= 0):
            raise _malformed("the head does not end with an empty line")
        if end < 0:
            self._tail = (self._tail + data[at:stop])[-3:]
        else:
            self._accept_head(more=stop < len(data))
        return stop

    def _accept_head(self, *, more: bool) -> None:
        self._check_framing()
        self._client = self._service.authorize(self._headers)
        if self._remaining > self._settings.max_body_bytes:
            raise self._too_long()
        if self._complete:
            self._dispatch()
            return
        self._deadline = self._loop.time() + self._settings.body_idle_seconds
        expected = next((value for name, value in self._headers if name == b"expect"), None)
        if expected is not None and not self.http10:
            if expected.lower() != b"100-continue":
                raise ApiError(417, "only Expect: 100-continue is understood", code="expectation_failed")
            if not more:
                self._transport.write(_CONTINUE)

    def _check_framing(self) -> None:
        """What llhttp lets through, and what another server could read in another way."""
        if len(self._headers) > self._settings.max_headers:
            raise ApiError(431, "the request has too many headers", code="headers_too_large")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ApiError(505, "only HTTP/1.1 and HTTP/1.0 are understood", code="http_version_not_supported")
        self.http10 = version == "1.0"
        self._method = self._parser.get_method()
        hosts = 0
        for name, value in self._headers:
            if name == b"content-length":
                self._remaining = int(value)
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or self.http10:
                    raise _malformed("the only transfer encoding is chunked, in HTTP/1.1")
                self._chunked = True
            elif name == b"host":
                hosts += 1
        if hosts > 1 or (hosts == 0 and not self.http10):
            raise _malformed("exactly one Host header is needed")
        if not self._url.startswith(b"/"):
            raise _malformed("the target must be a path")

    def _read_body(self, data: bytes, at: int) -> int:
        stop = len(data) if self._chunked else min(len(data), at + self._remaining)
        self._deadline = self._loop.time() + self._settings.body_idle_seconds
        try:
            self._parser.feed_data(memoryview(data)[at:stop])
        except httptools.HttpParserError:
            if not self._complete:
                raise
            self._surplus = True
        if self._chunked:
            self._raw_bytes += stop - at
            limit = self._settings.max_body_bytes
            # Chunks of a few bytes, or extensions, cost more to read than they carry.
            if self._body_bytes > limit or self._raw_bytes > 2 * limit + self._settings.max_head_bytes:
                raise self._too_long()
        else:
            self._remaining -= stop - at
            if self._complete is not (self._remaining == 0):
                raise _malformed("the body is not as long as its Content-Length")
        if self._complete:
            self._dispatch()
        return stop

    def _too_long(self) -> ApiError:
        limit = self._settings.max_body_bytes
        return ApiError(413, f"the request body is longer than {limit} bytes", code="request_too_large")

    # Answering it

    def _dispatch(self) -> None:
        self._busy = True
        self._deadline = _NEVER
        if self._surplus or self._service.draining or self.http10:
            self._keep_alive = False
        path = self._url.partition(b"?")[0]
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        request = Request(self._method, path, self._headers, body, self._client)
        try:
            running = self._service.handle(self, request)
        except ApiError as error:
            self.fail(error, b"")
            return
        if self._busy:
            self._running = running

    def respond(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """Answer with JSON, and go on to the next request."""
        write = self.begin(
            STATUS_LINES[status] + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) + headers,
            until_close=False,
        )
        if self._method != b"HEAD":
            write(body)
        self.end()

    def fail(self, error: ApiError, headers: bytes) -> None:
        """Answer with an error."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items()).encode()
        self.respond(error.status, error.body(), headers + lines)

    def begin(self, head: bytes, *, until_close: bool) -> Callable[[bytes], object]:
        """Send a head; what is returned takes the body."""
        self._until_close = until_close
        if until_close or self._service.draining:
            self._keep_alive = False
        self._transport.write(head + (b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n"))
        return self._transport.write

    def end(self) -> None:
        """The answer is complete."""
        self._running = None
        self._busy = False
        if not self._keep_alive or self._service.draining:
            self._close()
            return
        self._reset()
        if self.writable:
            self._wait()

    def cut(self) -> None:
        """Close so that the client cannot take the answer for a whole one: without its framing's end, or by a reset."""
        self._running = None
        if self._until_close:
            self._reset_connection()
        self._close()

    # Ending the connection

    def sweep(self, now: float) -> None:
        """End what has lasted too long."""
        running = self._running
        if running is not None and now >= running.deadline:
            running.expire()
        elif now >= self._deadline:
            self._expire()

    def drain(self) -> None:
        """Close now if nothing is under way, else after the answer."""
        if not self._busy and self._head_bytes == 0 and not self._pending:
            self._close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def _expire(self) -> None:
        if self._closing or not self.writable:
            self.abort()
        elif self._head_bytes == 0:
            self._close()
        else:
            self._refuse(ApiError(408, "the request did not arrive in time", code="request_timeout"))

    def _wait(self) -> None:
        """For the next request, which may have come already."""
        self._deadline = self._loop.time() + self._settings.keep_alive_seconds
        if self._overflow:
            self._close()
        elif self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._consume(data)

    def _refuse(self, error: ApiError) -> None:
        """Answer a request that was not read whole, and close without a reset, which could overtake the answer."""
        self._service.refused(error)
        if self._busy or self._closing:
            self.abort()
            return
        self._keep_alive = False
        self._busy = True
        self.fail(error, b"")

    def _close(self) -> None:
        """Send what is left, then the end; what the client still sends is read and dropped for a while."""
        if self._closing:
            return
        self._closing = True
        self._pending.clear()
        if self._head_bytes == 0 or (self._complete and not self._surplus):
            self._transport.close()
            self._deadline = self._loop.time() + self._settings.write_stall_seconds
        else:
            self._transport.write_eof()
            self._deadline = self._loop.time() + LINGER_SECONDS

    def _reset_connection(self) -> None:
        found: socket.socket | None = self._transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """A message after a chunked one, in the same piece: it is not answered, and the connection closes."""
        self._surplus = self._complete

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        if not self._complete:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect the head's fields; trailers are dropped."""
        if not self._head_complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """From here on llhttp reads the body."""
        self._head_complete = True

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        if not self._complete:
            self._body.append(body)
            self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Read now what llhttp forgets after this callback."""
        if not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()


def _malformed(why: str) -> ApiError:
    return ApiError(400, f"malformed HTTP request: {why}", code="malformed_request")
