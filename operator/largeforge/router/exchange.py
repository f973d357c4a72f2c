"""One routed request: at most two attempts until an engine's first byte, then the relay of its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from largeforge.router.http1 import STATUS_LINES, response_lines
from largeforge.router.openai import SERVER, ApiError, unavailable
from largeforge.router.pool import Peer, Pool
from largeforge.router.resolve import Decision
from largeforge.router.settings import Settings
from largeforge.router.upstream import Upstream

MAX_ATTEMPTS = 2

GONE = "gone"
"""The client left before its answer was complete."""
CUT = "cut"
"""The engine's response broke off after its first byte had been handed on."""


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

    def parts(self, host_line: bytes) -> list[bytes | memoryview]:
        """The bytes for one pod."""
        ...


class Exchange:
    """A request under way. Ends exactly once, by `on_done` with a status or one of the words above."""

    def __init__(
        self,
        client: Client,
        request: Request,
        *,
        pool: Pool,
        settings: Settings,
        on_done: Callable[[Exchange, str], None],
    ) -> None:
        self.decision = request.decision
        self._client = client
        self._request = request
        self._pool = pool
        self._settings = settings
        self._on_done = on_done
        self.attempts = 0
        self._peer: Peer | None = None
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._relaying = False
        self._status = 0
        self._done = False
        self.deadline = float("inf")
        """When the first byte must have come."""

    def start(self) -> None:
        """Make the first attempt."""
        self._attempt(self._pool.choose(self.decision.route.pods))

    # What the client's connection says

    def cancel(self) -> None:
        """The client is gone: so is the request, whatever phase it is in."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.abandon()
        self._finish(GONE)

    def pause(self) -> None:
        """The client reads slowly: so do we."""
        if self._relaying and self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """The client has read."""
        if self._relaying and self._upstream is not None:
            self._upstream.resume()

    def expire(self) -> None:
        """The first byte has not come in time."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.abandon()
        seconds = self._settings.first_byte_seconds
        self._fail(ApiError(504, f"the engine sent nothing for {seconds:g} s", kind=SERVER, code="engine_timeout"))

    # What the connection to the engine says

    def on_response(self, upstream: Upstream, first: bytes) -> Callable[[bytes], object] | None:
        """Hand the head on, unless it is about the router's own dealings with the engine."""
        status = upstream.status
        if status == 404 or status in (401, 403) or 300 <= status < 400:
            upstream.abandon()
            self._refused(status)
            return None
        self.deadline = float("inf")
        self._status = status
        self._relaying = True
        until_close = upstream.until_close or (self._client.http10 and upstream.chunked)
        chunked = upstream.chunked and not self._client.http10
        head = STATUS_LINES[status] + response_lines(upstream.headers, chunked=chunked) + self.decision.headers()
        write = self._client.begin(head, first, until_close=until_close)
        if not self._client.writable:
            upstream.pause()
        return write

    def on_end(self) -> None:
        """The answer is complete."""
        self._upstream = None
        self._finish(str(self._status))
        self._client.end()

    def on_lost(self, upstream: Upstream, why: str) -> None:
        """Try again where nothing has come yet; else the client must see that the answer is not whole."""
        self._upstream = None
        if self._relaying:
            self._finish(CUT)
            self._client.cut()
        elif upstream.received:
            self._fail(_bad_gateway(why))
        else:
            self._again(_bad_gateway(why), same_pod=upstream.reused)

    # Attempts

    def _attempt(self, peer: Peer | None) -> None:
        if peer is None:
            self._fail(self._no_pod("no pod is ready"))
            return
        self.attempts += 1
        self._peer = peer
        peer.in_flight += 1
        loop = asyncio.get_running_loop()
        self.deadline = loop.time() + self._settings.first_byte_seconds
        # A second attempt must not meet another connection that is just being closed.
        idle = peer.take() if self.attempts == 1 and not self._client.http10 else None
        if idle is not None:
            self._send(idle, peer)
        else:
            self._connecting = loop.create_task(self._connect(peer))

    async def _connect(self, peer: Peer) -> None:
        try:
            upstream = await peer.connect(seconds=self._settings.connect_seconds, dechunked=self._client.http10)
        except OSError:  # TimeoutError is one
            self._connecting = None
            self._again(self._no_pod("the engine's pod does not take connections"), same_pod=False)
            return
        self._connecting = None
        self._send(upstream, peer)

    def _send(self, upstream: Upstream, peer: Peer) -> None:
        self._upstream = upstream
        upstream.send(self, self._request.parts(peer.host_line))

    def _again(self, error: ApiError, *, same_pod: bool) -> None:
        """Make the second attempt, on another pod if there is one; *error* where there is none left."""
        failed = self._peer
        self._release()
        if self.attempts >= MAX_ATTEMPTS:
            self._fail(error)
            return
        other = self._pool.choose(self.decision.route.pods, avoid=failed) or (failed if same_pod else None)
        if other is None:
            self._fail(error)
        else:
            self._attempt(other)

    def _refused(self, status: int) -> None:
        self._upstream = None
        if status == 404:  # it has lost the adapter, say by a restart; the table will say so soon
            self._again(self._no_pod("the engine does not know the model at the moment"), same_pod=False)
        elif status in (401, 403):
            self._fail(_bad_gateway("the engine refuses the router's key"))
        else:
            self._fail(_bad_gateway("the engine answered with a redirect, which is not followed"))

    # The end

    def _no_pod(self, why: str) -> ApiError:
        return unavailable(
            f"'{self.decision.route.name}' cannot answer: {why}; try again",
            code="engine_unavailable",
            retry_after_seconds=self._settings.retry_after_seconds,
        )

    def _fail(self, error: ApiError) -> None:
        self._upstream = None
        self._finish(str(error.status))
        self._client.fail(error, self.decision.headers())

    def _release(self) -> None:
        if self._peer is not None:
            self._peer.in_flight -= 1
            self._peer = None

    def _finish(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        self._release()
        self._upstream = self._connecting = None
        self._on_done(self, outcome)


def _bad_gateway(why: str) -> ApiError:
    return ApiError(502, why, kind=SERVER, code="engine_error")
