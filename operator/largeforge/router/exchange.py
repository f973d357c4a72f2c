"""One routed request: a place, at most two attempts until an engine's first byte, then the relay of its response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from largeforge.router.http1 import STATUS_LINES, Header, response_lines
from largeforge.router.limits import Gate
from largeforge.router.openai import ApiError
from largeforge.router.pool import Peer, Pool
from largeforge.router.settings import Settings
from largeforge.router.sides import Client, Request, Unframed
from largeforge.router.trouble import bad_gateway, no_place, no_pod, silent, too_slow
from largeforge.router.upstream import Upstream

MAX_ATTEMPTS = 2
LOOKS = 2
"""In `chunk_idle_seconds` one looks so often whether an engine is silent; so it is cut half of that late at most."""

GONE = "gone"
"""The client left before its answer was complete."""
MAX_NOT_FOUND_BYTES = 64 * 1024
"""The longest answer 404 that is looked at before it is handed on."""
_UNKNOWN_MODEL = (b"NotFoundError", b'"model_not_found"')
"""What vLLM and OpenAI's API call it when the model is not one of theirs; a 404 for a previous response is another."""
CUT = "cut"
"""The engine's response broke off after its first byte had been handed on."""


class Exchange:
    """A request under way. Ends exactly once, by `on_done` with a status or one of the words above."""

    def __init__(  # noqa: PLR0913 - both sides, and what of the process it needs
        self,
        client: Client,
        request: Request,
        *,
        pool: Pool,
        gate: Gate | None,
        settings: Settings,
        on_done: Callable[[Exchange, str], None],
    ) -> None:
        self.decision = request.decision
        self._client = client
        self._request: Request | None = request
        self._pool = pool
        self._gate = gate
        self._waiting = False
        self._settings = settings
        self._on_done = on_done
        self.attempts = 0
        self.faults: tuple[str, ...] = ()
        """What engines did wrong, in a word each."""
        self.began = monotonic()
        self.first = 0.0
        """When the first byte of the answer's content came."""
        self.streamed = False
        self.pieces = 0
        """Of an answer that came whole."""
        self.last: Sequence[bytes] = ()
        self._peer: Peer | None = None
        self._probing = False
        """Whether this attempt is the one by which a breaker finds out."""
        self._upstream: Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._relaying = False
        self._silent_looks = 0
        self._unframed: Unframed | None = None
        self._not_found: bytearray | None = None
        """An engine's 404, until it is known whether it means the model."""
        self._status = 0
        self._done = False
        self.deadline = float("inf")
        """When the place or the first byte must have come; then, when to look whether the engine is silent."""
        self._end = float("inf")
        """When all must be over."""

    def start(self) -> None:
        """Make the first attempt, or wait for a place."""
        seconds = self.decision.route.timeout_seconds
        if seconds is not None:
            self._end = self._pool.now() + seconds
        if self._gate is not None:
            try:
                self._waiting = not self._gate.enter(self, retry_after_seconds=self._settings.retry_after_seconds)
            except ApiError as error:
                self._gate = None
                self._fail(error)
                return
            if self._waiting:
                self._until(self._settings.queue_seconds)
                return
        self._attempt(self._choose())

    def admitted(self) -> None:
        """There is a place; the attempt is made at once, but not amid the end of the request that had it."""
        asyncio.get_running_loop().call_soon(self._admitted)

    def _admitted(self) -> None:
        self._waiting = False
        if not self._done:
            self._attempt(self._choose() if self._renew() else None)

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
        """The first byte has not come in time; or it is time to look whether more has come."""
        now = self._pool.now()
        if self._relaying and now < self._end:
            self._look()
            return
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.abandon()
        if self._relaying:
            self._finish(CUT)
            self._client.cut()
        elif now >= self._end:
            self._fail(too_slow(self.decision.route))
        elif self._waiting:
            self._fail(no_place(self.decision.route, self._settings))
        else:
            self.faults += ("silent",)
            self._verdict(failed=True)
            self._fail(silent(self._settings))

    def _look(self) -> None:
        """Cut the answer of an engine that was silent for two looks on end, while the client was reading."""
        upstream = self._upstream
        if upstream is None:
            return
        self._silent_looks = self._silent_looks + 1 if upstream.silent and self._client.writable else 0
        if self._silent_looks < LOOKS:
            upstream.listen()
            self._until(self._settings.chunk_idle_seconds / LOOKS)
        else:
            self.faults += ("silent",)
            upstream.abandon()
            self._finish(CUT)
            self._client.cut()

    # What the connection to the engine says

    def on_response(self, upstream: Upstream, first: bytes) -> Callable[[bytes], object] | None:
        """Hand the head on, unless it is about the router's own dealings with the engine."""
        status = upstream.status
        if status >= 500:
            self.faults += ("status",)
        self._verdict(failed=status >= 500)
        if status == 404:
            self._not_found = bytearray()
            return self._hold(first)
        if status in (401, 403) or 300 <= status < 400:
            upstream.abandon()
            self._refused(status)
            return None
        self.deadline = self._pool.now()  # listen at the next sweep
        write = self._relay(upstream, first)
        if upstream.until_close and _is_event_stream(upstream.headers):
            write = self._unframed = Unframed(write, first)
        if not self._client.writable:
            upstream.pause()
        return write

    def _relay(self, upstream: Upstream, first: bytes) -> Callable[[bytes], object]:
        """Hand the head on, and the first of the body."""
        self._request = None  # its body is freed, and it is never sent again
        self._status = upstream.status
        self._relaying = True
        until_close = upstream.until_close or (self._client.http10 and upstream.chunked)
        chunked = upstream.chunked and not self._client.http10
        lines = response_lines(upstream.headers, chunked=chunked)
        head = STATUS_LINES[upstream.status] + lines + self.decision.headers()
        return self._client.begin(head, first, until_close=until_close)

    def _hold(self, data: bytes) -> Callable[[bytes], object] | None:
        """Keep what comes of a 404."""
        held, upstream = self._not_found, self._upstream
        if held is None or upstream is None:
            return None
        held += data
        if len(held) > MAX_NOT_FOUND_BYTES:
            upstream.abandon()
            self._fail(bad_gateway("the engine's answer 404 is too long"))
            return None
        return self._hold

    def on_end(self) -> None:
        """The answer is complete, as far as its framing tells."""
        upstream, self._upstream = self._upstream, None
        if self._not_found is not None and upstream is not None:
            held, self._not_found = bytes(self._not_found), None
            if any(mark in held for mark in _UNKNOWN_MODEL):
                # It has lost the adapter, say by a restart; the table will say so soon.
                self.faults += ("unknown_model",)
                self._again(
                    self._no_pod("the engine does not know the model at the moment"),
                    same_pod=False,
                )
                return
            self._relay(upstream, held)
        if upstream is not None:
            self._measure(upstream)
        if self._unframed is not None and not self._unframed.complete:
            self._finish(CUT)
            self._client.cut()
            return
        if upstream is not None:
            self.pieces, self.last = upstream.pieces, upstream.last
        self._finish(str(self._status))
        self._client.end()

    def on_lost(self, upstream: Upstream, why: str) -> None:
        """Try again where nothing has come yet; else the client must see that the answer is not whole."""
        self._upstream = None
        self.faults += ("lost",)
        if self._relaying:
            self._measure(upstream)
            self._finish(CUT)
            self._client.cut()
            return
        if upstream.received or not upstream.reused:
            self._verdict(failed=True)
        if upstream.received:
            self._fail(bad_gateway(why))
        else:
            self._again(bad_gateway(why), same_pod=upstream.reused)

    # Attempts

    def _attempt(self, peer: Peer | None) -> None:
        if peer is None:
            self._fail(self._no_pod("no pod is ready"))
            return
        self.attempts += 1
        self._peer = peer
        peer.in_flight += 1
        if peer.breaker.shut:
            self._probing = peer.breaker.started(self._pool.now())
        self._until(self._settings.first_byte_seconds)
        # A second attempt must not meet another connection that is just being closed.
        idle = peer.take() if self.attempts == 1 and not self._client.http10 else None
        if idle is not None:
            self._send(idle, peer)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect(peer))

    async def _connect(self, peer: Peer) -> None:
        try:
            upstream = await peer.connect(seconds=self._settings.connect_seconds, dechunked=self._client.http10)
        except OSError:  # TimeoutError is one
            self._connecting = None
            self.faults += ("connect",)
            self._verdict(failed=True)
            self._again(
                self._no_pod("the engine's pod does not take connections"),
                same_pod=False,
            )
            return
        self._connecting = None
        self._send(upstream, peer)

    def _send(self, upstream: Upstream, peer: Peer) -> None:
        if self._request is None:
            raise AssertionError("a request whose answer has begun must not be sent again")
        self._upstream = upstream
        upstream.send(self, self._request.parts(peer.host_line))

    def _again(self, error: ApiError, *, same_pod: bool) -> None:
        """Make the second attempt, on another pod if there is one; *error* where there is none left."""
        failed = self._peer
        self._release()
        if self.attempts >= MAX_ATTEMPTS:
            self._fail(error)
            return
        other = (self._choose(avoid=failed) or (failed if same_pod else None)) if self._renew() else None
        if other is None:
            self._fail(error)
        else:
            self._attempt(other)

    def _choose(self, *, avoid: Peer | None = None) -> Peer | None:
        key = self._request.key if self._request is not None else None
        return self._pool.choose(self.decision.route.name, key=key, avoid=avoid)

    def _renew(self) -> bool:
        """Look the name up again: what was true when the request came may be so no longer."""
        return self._request is not None and self._request.renew()

    def _until(self, seconds: float) -> None:
        """Look again then, or when all must be over."""
        self.deadline = min(self._pool.now() + seconds, self._end)

    def _verdict(self, *, failed: bool) -> None:
        """Tell the pod's breaker."""
        if self._peer is None:
            return
        breaker = self._peer.breaker
        self._probing = False
        if failed:
            breaker.failed(self._pool.now())
        elif breaker.failures:
            breaker.succeeded()

    def _refused(self, status: int) -> None:
        self._upstream = None
        self.faults += ("refused",)
        if status in (401, 403):
            self._fail(bad_gateway("the engine refuses the router's key"))
        else:
            self._fail(bad_gateway("the engine answered with a redirect, which is not followed"))

    # The end

    def _no_pod(self, why: str) -> ApiError:
        return no_pod(self.decision.route, self._settings, why)

    def _fail(self, error: ApiError) -> None:
        self._upstream = None
        self._finish(str(error.status))
        self._client.fail(error, self.decision.headers())

    def _measure(self, upstream: Upstream) -> None:
        """Keep what is counted of an answer, whether it is whole or not."""
        self.first = upstream.first_at
        self.streamed = upstream.chunked and _is_event_stream(upstream.headers)

    def _release(self) -> None:
        if self._peer is not None:
            self._peer.in_flight -= 1
            if self._probing:
                self._probing = False
                self._peer.breaker.undecided()
            self._peer = None

    def _finish(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        if self._upstream is not None and self._relaying:
            self._measure(self._upstream)
        self._release()
        self._upstream = self._connecting = self._request = None
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave(self)
        self._on_done(self, outcome)


def _is_event_stream(headers: list[Header]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
