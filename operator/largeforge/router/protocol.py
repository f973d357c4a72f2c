"""One connection of a client: requests in, one at a time, and their answers out.

What a client sends while it is being answered waits, up to the size of one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from largeforge.router.http1 import STATUS_LINES, Header, keep_alive, reset_on_close
from largeforge.router.openai import ApiError
from largeforge.router.reader import RequestReader
from largeforge.router.service import Request, Running, Service

LINGER_SECONDS = 2.0
"""How long a refused client may go on sending, so that it sees the answer and not a reset."""
HIGH_WATER_BYTES = 64 * 1024
"""Above this the engine is made to wait. One read more may come on top, up to 256 KB. For TLS the default is 512 KB."""
_NEVER = float("inf")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ClientConnection(asyncio.Protocol):
    """A connection, and the request that is being read from it or answered on it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(service.settings, self._accept)
        self._transport: asyncio.Transport
        self._client = ""
        self._admitted = False
        self._busy = False
        self._running: Running | None = None
        self._keep_alive = False
        self._until_close = False
        self._pending = bytearray()
        self._overflow = False
        """Whether more was sent than may wait, so that the rest of the connection makes no sense."""
        self._closing = False
        self._deadline = _NEVER
        self.writable = True

    @property
    def http10(self) -> bool:
        """Whether the client speaks HTTP/1.0."""
        return self._reader.http10

    @property
    def idle(self) -> bool:
        """Whether no request is being read or answered."""
        return not self._busy and not self._reader.begun and not self._pending and self.writable

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = transport  # type: ignore[assignment]
        self._deadline = self._loop.time() + self._settings.head_seconds
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        keep_alive(transport)
        error = self._service.opened(self)
        if error is not None:
            self._overflow = True
            self._refuse(error)

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
        self._leave()
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
        reader = self._reader
        at, size = 0, len(data)
        try:
            while at < size and not self._busy and not self._closing and self.writable:
                if not reader.begun:
                    self._deadline = self._loop.time() + self._settings.head_seconds
                at = reader.feed(data, at)
                if reader.complete:
                    self._dispatch()
                elif reader.head_complete:
                    self._deadline = self._loop.time() + self._settings.body_idle_seconds
                    if reader.expects_continue and at == size:
                        self._transport.write(_CONTINUE)
                    reader.expects_continue = False
        except ApiError as error:
            self._refuse(error)
        if at < size and not self._closing:
            self._keep(data[at:])

    def _accept(self, headers: list[Header]) -> None:
        """Who asks is known before anything else is done for them; what anybody may read needs no key."""
        try:
            self._client = self._service.admit(self, headers)
        except ApiError:
            if not (self._reader.bodyless and self._service.public(self._reader.method, self._reader.path)):
                raise
            self._client = ""
        else:
            self._admitted = True

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._service.leave(self._client)

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > self._settings.max_body_bytes + self._settings.max_head_bytes:
            self._pending.clear()
            self._overflow = True
            self._keep_alive = False

    def _wait(self) -> None:
        """For the next request, which may have come already."""
        self._deadline = self._loop.time() + self._settings.keep_alive_seconds
        if self._overflow:
            self._close()
        elif self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            self._consume(data)

    # Answering it

    def _dispatch(self) -> None:
        reader = self._reader
        self._busy = True
        self._deadline = _NEVER
        self._keep_alive = reader.keep_alive and not reader.surplus and not reader.http10
        request = Request(reader.method, reader.path, reader.headers, reader.take_body(), self._client)
        try:
            running = self._service.handle(self, request)
        except ApiError as error:
            self.fail(error, b"")
            return
        if self._busy:
            self._running = running

    def respond(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """Answer with JSON, and go on to the next request."""
        head = STATUS_LINES[status] + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.hand_out(head + headers, body)

    def hand_out(self, head: bytes, body: bytes) -> None:
        """Answer with *body*, whose length and type *head* has, and go on to the next request."""
        self.begin(head, b"" if self._reader.method == b"HEAD" else body, until_close=False)
        self.end()

    def fail(self, error: ApiError, headers: bytes) -> None:
        """Answer with an error."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items()).encode()
        self.respond(error.status, error.body(), headers + lines)

    def begin(self, head: bytes, first: bytes, *, until_close: bool) -> Callable[[bytes], object]:
        """Send a head and the first of its body; what is returned takes the rest."""
        self._until_close = until_close
        if until_close or self._service.draining:
            self._keep_alive = False
        self._transport.write(head + (b"\r\n" if self._keep_alive else b"connection: close\r\n\r\n") + first)
        return self._transport.write

    def end(self) -> None:
        """The answer is complete."""
        self._running = None
        self._busy = False
        self._leave()
        if not self._keep_alive or self._service.draining:
            self._close()
            return
        self._reader.reset()
        if self.writable:
            self._wait()

    def cut(self) -> None:
        """Close so that the client cannot take the answer for a whole one: without its framing's end, or by a reset."""
        self._running = None
        self._leave()
        if self._until_close:
            reset_on_close(self._transport)
            if not self._transport.can_write_eof():  # TLS would say an orderly farewell
                self.abort()
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
        if self.idle:
            self._close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def _expire(self) -> None:
        if self._closing or not self.writable:
            self.abort()
        elif not self._reader.begun:
            self._close()
        else:
            self._refuse(ApiError(408, "the request did not arrive in time", code="request_timeout"))

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
        if self._closing or self._transport.is_closing():
            return
        self._closing = True
        self._pending.clear()
        if not self._overflow and (not self._reader.begun or (self._reader.complete and not self._reader.surplus)):
            self._transport.close()
            self._deadline = self._loop.time() + self._settings.write_stall_seconds
        else:
            if self._transport.can_write_eof():  # TLS has no half of a connection
                self._transport.write_eof()
            self._deadline = self._loop.time() + LINGER_SECONDS
