"""Loopback sockets on uvloop: scripted engines on one side, raw clients on the other, the router between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from largeforge.router import table_file, tls
from largeforge.router.clients import Clients
from largeforge.router.dispatch import Dispatcher
from largeforge.router.metrics import Metrics
from largeforge.router.protocol import ClientConnection
from largeforge.router.settings import Settings

KEY = "client-key-0123456789"
ENGINE_KEY = "the-engine-key"
DEADLINE = 5.0


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


def completion(text: str = "hello") -> bytes:
    choice = b'{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}' % text.encode()
    return b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[%b]}' % choice


def event(text: str) -> bytes:
    choice = b'{"index":0,"delta":{"content":"%b"},"finish_reason":null}' % text.encode()
    return b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[%b]}\n\n' % choice


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def whole(body: bytes, head: bytes = OK) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


@dataclass
class Received:
    """A request as an engine got it, and the way back."""

    head: bytes
    body: bytes
    connection: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the router has closed its connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1024):
                pass

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Received], Awaitable[None]]


async def answer(received: Received) -> None:
    """What an engine does that has no script."""
    if b'"stream":true' in received.body.replace(b" ", b""):
        await received.send(STREAM + chunk(event("Hel")) + chunk(event("lo")) + chunk(b"data: [DONE]\n\n") + LAST)
    else:
        await received.send(whole(completion()))


class Engine:
    """Answers each request by `script`, and remembers what it got."""

    def __init__(self, script: Script = answer) -> None:
        self.script = script
        self.received: list[Received] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._arrived = asyncio.Condition()

    async def start(self, context: ssl.SSLContext | None = None) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def request(self, count: int = 1) -> Received:
        """The request with that number, once it is there."""
        async with asyncio.timeout(DEADLINE), self._arrived:
            await self._arrived.wait_for(lambda: len(self.received) >= count)
        return self.received[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                received = Received(head, b"", number, reader, writer)
                received.body = await reader.readexactly(int(received.headers.get("content-length", "0")))
                async with self._arrived:
                    self.received.append(received)
                    self._arrived.notify_all()
                await self.script(received)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@dataclass
class Answer:
    """A response as a raw client got it."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw[9:12])

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


@dataclass
class Raw:
    """A client that writes bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readuntil(mark)

    async def answer(self) -> Answer:
        """One response, framed by its Content-Length or chunks."""
        head = await self.until(b"\r\n\r\n")
        found = Answer(head)
        async with asyncio.timeout(DEADLINE):
            if "content-length" in found.headers:
                return Answer(head + await self.reader.readexactly(int(found.headers["content-length"])))
            return Answer(head + await self.reader.readuntil(b"0\r\n\r\n"))

    async def rest(self) -> bytes:
        """All that comes until the router closes."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()

    def close(self) -> None:
        self.writer.transport.abort()


def post(body: bytes, *, headers: bytes = b"", path: bytes = b"/v1/chat/completions", key: str = KEY) -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n%b"
        b"Content-Length: %d\r\n\r\n%b" % (path, key.encode(), headers, len(body), body)
    )


def get(path: bytes, *, key: str = KEY) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: router\r\nAuthorization: Bearer %b\r\n\r\n" % (path, key.encode())


CHAT = b'{"model":"auto","messages":[{"role":"user","content":"hi"}]}'
CHAT_STREAM = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"hi"}]}'


def chat(text: str, **members: Any) -> bytes:
    """A conversation of its own."""
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "auto", "messages": messages} | members).encode()


EXPERTS = """
- kind: Expert
  metadata: {name: poetry}
  spec:
    type: Adapter
    sourceRef: {kind: FineTuneJob, name: poetry}
    inferenceServiceRef: {name: smol}
    version: 1.2.0
    routing: {keywords: [{pattern: sonnet}, {pattern: haiku}], domains: [poems]}
- kind: Expert
  metadata: {name: general}
  spec:
    type: Model
    artifact: {uri: "pvc://models/smol"}
    inferenceServiceRef: {name: smol}
    routing: {fallback: true}
"""


def table_of(*ports: int, experts: str = EXPERTS) -> Any:
    endpoints = [{"service": "smol", "url": f"http://127.0.0.1:{port}", "key": ENGINE_KEY} for port in ports]
    return table_file.table([yaml.safe_load(experts), {"endpoints": endpoints}])


@dataclass
class Router:
    """The router, on a port of its own."""

    dispatcher: Dispatcher
    port: int
    raws: list[Raw] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def connect(self, context: ssl.SSLContext | None = None) -> Raw:
        limit = 16 * 1024 * 1024
        raw = Raw(*await asyncio.open_connection("127.0.0.1", self.port, limit=limit, ssl=context))
        self.raws.append(raw)
        return raw

    async def ask(self, data: bytes) -> Answer:
        raw = await self.connect()
        await raw.send(data)
        return await raw.answer()

    def outcomes(self) -> dict[tuple[str, str, str], int]:
        return dict(self.dispatcher.metrics._requests)

    async def idle(self) -> None:
        """Wait until nothing is under way; what is left over is a leak."""
        peers = self.dispatcher.pool._peers
        await until(lambda: not self.dispatcher.metrics.in_flight and not any(p.in_flight for p in peers.values()))


class Lab:
    """Starts engines and routers, and ends them."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def engine(self, script: Script = answer, *, context: ssl.SSLContext | None = None) -> Engine:
        engine = Engine(script)
        server = await engine.start(context)
        self._stack.callback(server.close)
        return engine

    async def router(
        self,
        *engines: Engine | int,
        clients: Clients | None = None,
        certificate: tls.Certificate | None = None,
        trust: ssl.SSLContext | None = None,
        **settings: Any,
    ) -> Router:
        loop = asyncio.get_running_loop()
        keys = Clients({"team": [KEY]}) if clients is None else clients
        dispatcher = Dispatcher(Settings(**settings), keys, Metrics(), trust=trust)
        ports = [engine if isinstance(engine, int) else engine.port for engine in engines]
        if ports:
            dispatcher.replace_table(table_of(*ports))
        if certificate is None:
            server = await loop.create_server(lambda: ClientConnection(dispatcher), "127.0.0.1", 0)
            self._stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
        else:
            seconds = dispatcher.settings.head_seconds
            sock = tls.bind("127.0.0.1", 0, backlog=100)
            listener = tls.Listener(sock, certificate, lambda: ClientConnection(dispatcher), handshake_seconds=seconds)
            self._stack.push_async_callback(listener.close)
            port = listener.port
        router = Router(dispatcher, port)
        sweep = loop.create_task(dispatcher.sweep(0.02))
        self._stack.push_async_callback(self._stop, router, sweep)
        return router

    async def _stop(self, router: Router, sweep: asyncio.Task[None]) -> None:
        for raw in router.raws:
            raw.close()
        await router.dispatcher.drain(DEADLINE)
        sweep.cancel()
        await router.idle()
        assert not router.dispatcher.connections
        assert router.dispatcher.quota.under_way == {}
        assert all(gate.under_way == gate.waiting == 0 for gate in router.dispatcher.gates._gates.values())
