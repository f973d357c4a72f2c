"""Clients and engines that do what they like, and what must hold all the time and in the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzz.behaviours import BEHAVIOURS, REQUESTS, SURE, WHOLE_REQUESTS, answers
from tests.unit.router.lab import EXPERTS, Engine, Lab, Router, table_of, until

MAX_CLIENTS = 5


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Answers:
    """Reads a client's bytes strictly, and collects the answers that are whole."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._routed = False
        self._framed = False
        self._body: list[bytes] = []
        self.whole: list[tuple[int, bytes]] = []
        """Status and body of each answer that is well-formed to its end, and came from an engine."""

    def feed(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, _: bytes) -> None:
        """Note what tells how it ends, and whether it was routed."""
        self._routed |= name.lower() == b"x-largeforge-expert"
        self._framed |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The framing says that this is all."""
        if self._routed:
            self.whole.append((self._parser.get_status_code(), b"".join(self._body)))
        self._routed = self._framed = False
        self._body.clear()

    def end(self) -> None:
        """The connection was closed in order: without other framing that is an answer's end."""
        if self._routed and not self._framed:
            self.whole.append((self._parser.get_status_code(), b"".join(self._body)))


class Client(asyncio.Protocol):
    """A client that reads what comes, unless it was told not to."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.transport: Any = None
        self.closed = asyncio.Event()
        self.left = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Read."""
        self.answers.feed(data)

    def eof_received(self) -> None:
        """An orderly end."""
        if not self.left:
            self.answers.end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Whatever the end was."""
        self.closed.set()


@dataclass
class Ends:
    """How often each request that was started has ended."""

    started: int = 0
    ended: dict[int, int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    """The requests themselves, so that no two have the same identity."""


class Wire(RuleBasedStateMachine):
    """The router between clients and engines, on a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.stack = contextlib.AsyncExitStack()
        self.clients: list[Client] = []
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))
        self.do(self._start())

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run *work*, and let what follows from it happen."""
        self.loop.run_until_complete(self._and_settle(work))

    async def _and_settle(self, work: Coroutine[Any, Any, None]) -> None:
        await work
        for _ in range(5):
            await asyncio.sleep(0)

    async def _start(self) -> None:
        lab = Lab(self.stack)
        self.engines: list[Engine] = [await lab.engine(answers) for _ in range(2)]
        self.router: Router = await lab.router(
            *self.engines,
            max_requests_per_client=4,
            max_connections=4,
            queue_length=1,
            queue_seconds=0.2,
            chunk_idle_seconds=0.2,
            first_byte_seconds=0.3,
            head_seconds=0.3,
            body_idle_seconds=0.3,
            write_stall_seconds=0.5,
        )
        self.ends = Ends()
        done = self.router.dispatcher._done

        def counted(exchange: Any, outcome: str) -> None:
            self.ends.ended[id(exchange)] = self.ends.ended.get(id(exchange), 0) + 1
            self.ends.kept.append(exchange)
            done(exchange, outcome)

        self.router.dispatcher._done = counted
        self.descriptors = descriptors()  # on the loop, which has a pair of sockets for signals while it runs

    # What they do

    @initialize()
    def first(self) -> None:
        """Two clients are there from the beginning."""
        self.do(self._connect())
        self.do(self._connect())

    @precondition(lambda self: len(self.clients) < MAX_CLIENTS)
    @rule()
    def comes(self) -> None:
        """A client connects."""
        self.do(self._connect())

    async def _connect(self) -> None:
        client = Client()
        await self.loop.create_connection(lambda: client, "127.0.0.1", self.router.port)
        self.clients.append(client)

    def one(self, number: int) -> Client:
        """Some client that is still there."""
        return self.clients[number % len(self.clients)]

    @precondition(lambda self: self.clients)
    @rule(
        who=st.integers(0, MAX_CLIENTS),
        what=st.sampled_from(WHOLE_REQUESTS),
        how=st.sampled_from(BEHAVIOURS),
        seconds=st.sampled_from([0, 0.01]),
    )
    def is_answered(self, who: int, what: bytes, how: Any, seconds: float) -> None:
        """A client asks, and the engines answer in one way or another."""
        for engine in self.engines:
            engine.script = how
        self.do(self._send(self.one(who), what, len(what)))
        self.do(asyncio.sleep(seconds))

    @precondition(lambda self: self.clients)
    @rule(who=st.integers(0, MAX_CLIENTS), what=st.sampled_from(REQUESTS), step=st.sampled_from([1, 17, 10_000]))
    def asks(self, who: int, what: bytes, step: int) -> None:
        """A client sends something, in pieces."""
        self.do(self._send(self.one(who), what, step))

    async def _send(self, client: Client, what: bytes, step: int) -> None:
        for at in range(0, len(what), step):
            if client.closed.is_set() or client.left:
                return
            client.transport.write(what[at : at + step])
            await asyncio.sleep(0)

    @rule(which=st.integers(0, 1), how=st.sampled_from(BEHAVIOURS))
    def behaves(self, which: int, how: Any) -> None:
        """An engine answers so from now on."""
        self.engines[which].script = how

    @precondition(lambda self: self.clients)
    @rule(who=st.integers(0, MAX_CLIENTS), how=st.sampled_from(["reset", "close", "half"]))
    def leaves(self, who: int, how: str) -> None:
        """A client goes, or says that it has nothing more to say."""
        client = self.one(who)
        if how == "half":
            if not client.closed.is_set() and not client.left:
                client.transport.write_eof()
        else:
            self.clients.remove(client)
            (client.transport.abort if how == "reset" else client.transport.close)()
        client.left = True
        self.do(asyncio.sleep(0))

    @precondition(lambda self: self.clients)
    @rule(who=st.integers(0, MAX_CLIENTS), reads=st.booleans())
    def reads_or_not(self, who: int, *, reads: bool) -> None:
        """A client stops or goes on to read."""
        client = self.one(who)
        if not client.transport.is_closing():
            (client.transport.resume_reading if reads else client.transport.pause_reading)()

    @rule(count=st.sampled_from([1, 2]), most=st.sampled_from([None, 1, 2]))
    def gets_another_table(self, count: int, most: int | None) -> None:
        """Pods come and go, and so do limits."""
        self.do(self._use(count, most))

    async def _use(self, count: int, most: int | None) -> None:
        limits = f"    limits: {{maxConcurrentRequests: {most}}}\n" if most else ""
        ports = (engine.port for engine in self.engines[:count])
        self.router.dispatcher.replace_table(table_of(*ports, experts=EXPERTS + limits))

    @rule(seconds=st.sampled_from([0.002, 0.03]))
    def waits(self, seconds: float) -> None:
        """Time passes."""
        self.do(asyncio.sleep(seconds))

    # What holds

    @invariant()
    def counts_agree(self) -> None:
        """Each count is that of the connections which it counts."""
        dispatcher = self.router.dispatcher
        connections = list(dispatcher.connections)
        running = [c for c in connections if c._running is not None]
        assert dispatcher.metrics.in_flight == len(running)
        assert dispatcher.quota.under_way.get("team", 0) == sum(c._admitted for c in connections)
        assert all(c._admitted for c in running)
        assert len(dispatcher.connections) <= 4
        gates = dispatcher.gates._gates.values()
        assert sum(gate.under_way + gate.waiting for gate in gates) <= len(running)

    @invariant()
    def ended_once(self) -> None:
        """No request ends twice."""
        assert set(self.ends.ended.values()) <= {1}

    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        """No callback has raised."""
        assert self.problems == []

    def teardown(self) -> None:
        """Everybody goes, and nothing is left."""
        try:
            self.loop.run_until_complete(self._end())
        finally:
            self.loop.run_until_complete(self.stack.aclose())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            gc.collect()
        assert self.problems == []

    async def _end(self) -> None:
        for client in self.clients:
            if not client.transport.is_closing():
                client.transport.resume_reading()
        await asyncio.sleep(0.005)
        for client in self.clients:
            client.left = True
            client.transport.abort()
        await self.router.idle()
        await until(lambda: not list(self.router.dispatcher.connections))
        self.router.dispatcher.pool.close()
        await until(lambda: not any(engine.open for engine in self.engines))
        await until(lambda: descriptors() <= self.descriptors)
        # Its sweeper, and whoever asks.
        await until(lambda: len(asyncio.all_tasks()) == 2)
        assert self.router.dispatcher.quota.under_way == {}
        assert all(gate.under_way == gate.waiting == 0 for gate in self.router.dispatcher.gates._gates.values())
        assert set(self.ends.ended.values()) <= {1}
        self.counts_agree()
        for client in self.clients:
            for status, body in client.answers.whole:
                assert status != 200 or body in SURE, body[:200]
