"""From a request to its answer: who asks, for what, and where it goes."""

from __future__ import annotations

import asyncio
import contextlib

from largeforge.router.clients import Clients
from largeforge.router.exchange import Exchange
from largeforge.router.http1 import Header, request_lines
from largeforge.router.metrics import NO_EXPERT, Metrics
from largeforge.router.openai import ApiError, shown, unavailable
from largeforge.router.pool import Pool
from largeforge.router.protocol import ClientConnection, Request
from largeforge.router.resolve import Decision, explain, resolve
from largeforge.router.scan import Call, scan
from largeforge.router.settings import Settings
from largeforge.router.table import RouteTable

_ENGINE_PATHS = {
    b"/v1/chat/completions": b"POST /v1/chat/completions HTTP/1.1\r\n",
    b"/v1/completions": b"POST /v1/completions HTTP/1.1\r\n",
}
"""What of an engine can be reached; all else there stays closed."""
_ROUTE = b"/v1/route"
_MODELS = b"/v1/models"
_MODEL = b"/v1/models/"


class RoutedRequest:
    """A call on its way to an engine."""

    __slots__ = ("_after_host", "_before_host", "_call", "decision")

    def __init__(self, start_line: bytes, headers: list[Header], call: Call, decision: Decision) -> None:
        route = decision.route
        self.decision = decision
        self._call = call
        self._before_host = start_line
        self._after_host = b"%b%bcontent-length: %d\r\n\r\n" % (
            route.authorization,
            request_lines(headers),
            call.length_with_model(route.model),
        )

    def parts(self, host_line: bytes) -> list[bytes | memoryview]:
        """The bytes for one pod."""
        head = self._before_host + host_line + self._after_host
        return [head, *self._call.with_model(self.decision.route.model)]


class Dispatcher:
    """The router's service: one for the process."""

    def __init__(self, settings: Settings, clients: Clients, metrics: Metrics) -> None:
        self.settings = settings
        self.clients = clients
        self.metrics = metrics
        self.pool = Pool()
        self.draining = False
        self.table: RouteTable | None = None
        self.connections: set[ClientConnection] = set()
        self.emptied = asyncio.Event()

    def replace_table(self, table: RouteTable) -> None:
        """Use *table* from the next request on."""
        self.table = table
        self.pool.retain(table.pods)
        self.metrics.table_changed(len(table.routes))

    # What the connections ask

    def opened(self, connection: ClientConnection) -> None:
        """Know the connection, for sweeping and draining."""
        self.connections.add(connection)

    def closed(self, connection: ClientConnection) -> None:
        """Forget it."""
        self.connections.discard(connection)
        if not self.connections:
            self.emptied.set()

    def refused(self, error: ApiError) -> None:
        """Count it."""
        self.metrics.count(NO_EXPERT, "refused", str(error.status))

    def authorize(self, headers: list[Header]) -> str:
        """The client's name; where no key is configured, and that is allowed, everybody is the empty one."""
        found = [value for name, value in headers if name == b"authorization"]
        client = self.clients.name_of(found[0]) if len(found) == 1 else None
        if client is not None:
            return client
        if self.settings.allow_unauthenticated and not self.clients:
            return ""
        raise ApiError(
            401,
            "no valid API key; send one as 'Authorization: Bearer <key>'",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )

    def handle(self, connection: ClientConnection, request: Request) -> Exchange | None:
        """Answer, or start what will."""
        start_line = _ENGINE_PATHS.get(request.path)
        try:
            if start_line is None:
                self._answer(connection, request)
                return None
            _require(request, b"POST")
            call, decision = self._resolve(request)
        except ApiError as error:
            self.refused(error)
            raise
        routed = RoutedRequest(start_line, request.headers, call, decision)
        exchange = Exchange(connection, routed, pool=self.pool, settings=self.settings, on_done=self._done)
        self.metrics.in_flight += 1
        exchange.start()
        return exchange

    def _resolve(self, request: Request) -> tuple[Call, Decision]:
        _require_plain(request)
        call = scan(request.body)
        return call, resolve(self._current(), call, retry_after_seconds=self.settings.retry_after_seconds)

    def _answer(self, connection: ClientConnection, request: Request) -> None:
        path = request.path
        if path == _MODELS:
            _require(request, b"GET")
            connection.respond(200, self._current().models)
        elif path == _ROUTE:
            _require(request, b"POST")
            _require_plain(request)
            call = scan(request.body)
            retry_after = self.settings.retry_after_seconds
            connection.respond(200, explain(self._current(), call, retry_after_seconds=retry_after))
        elif path.startswith(_MODEL):
            _require(request, b"GET")
            connection.respond(200, self._card(path.removeprefix(_MODEL).decode("latin-1")))
        else:
            where = f"{_text(request.method)} {_text(path)}"
            raise ApiError(404, f"unknown URL ({shown(where)})", code="unknown_url")

    def _card(self, name: str) -> bytes:
        card = self._current().cards.get(name)
        if card is None:
            raise ApiError(
                404, f"no model named '{shown(name)}'; see GET /v1/models", code="model_not_found", param="model"
            )
        return card

    def _current(self) -> RouteTable:
        if self.table is None:
            raise unavailable(
                "the router has just started and knows no expert yet; try again",
                code="starting",
                retry_after_seconds=self.settings.retry_after_seconds,
            )
        return self.table

    def _done(self, exchange: Exchange, outcome: str) -> None:
        self.metrics.in_flight -= 1
        self.metrics.retries += exchange.attempts > 1
        self.metrics.count(exchange.decision.route.name, exchange.decision.reason, outcome)

    # Time

    async def drain(self, grace_seconds: float) -> None:
        """Let open requests end, but no longer than that."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        self.emptied.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.emptied.wait()
        for connection in list(self.connections):
            connection.abort()
        self.pool.close()

    async def sweep(self, every_seconds: float) -> None:
        """End what has lasted too long, for ever; cheaper than a timer for each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_seconds)
            now = loop.time()
            for connection in list(self.connections):
                connection.sweep(now)


def _require(request: Request, method: bytes) -> None:
    if request.method != method:
        allowed = method.decode()
        raise ApiError(
            405,
            f"{shown(_text(request.path))} takes {allowed}, not {shown(_text(request.method))}",
            code="method_not_allowed",
            headers={"allow": allowed},
        )


def _require_plain(request: Request) -> None:
    """The model cannot be replaced in what is compressed."""
    for name, value in request.headers:
        if name == b"content-encoding" and value.lower() != b"identity":
            raise ApiError(415, "send the request body without Content-Encoding", code="unsupported_content_encoding")


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
