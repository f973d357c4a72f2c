"""From a request to its answer: who asks, for what, and where it goes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping, Sequence

from largeforge.router import page
from largeforge.router.admission import Connections, Quota, no_room
from largeforge.router.choose import conversation
from largeforge.router.clients import Clients
from largeforge.router.defaults import Operation, splice
from largeforge.router.exchange import Exchange
from largeforge.router.explain import explain
from largeforge.router.http1 import Header, outside_lines, request_lines
from largeforge.router.limits import Gates
from largeforge.router.metrics import NO_EXPERT, Metrics
from largeforge.router.openai import ApiError, shown, unavailable
from largeforge.router.pool import Pool
from largeforge.router.protocol import ClientConnection
from largeforge.router.resolve import Decision, Question, question, resolve
from largeforge.router.scan import Call, scan
from largeforge.router.service import Request, Running
from largeforge.router.settings import Settings
from largeforge.router.table import Route, RouteTable, View
from largeforge.router.terms import Floats
from largeforge.router.undecided import Judge

_ENGINE_PATHS = {operation.value: operation for operation in Operation}
"""What of an engine can be reached; all else there stays closed."""
ROUTE = b"/v1/route"
MODELS = b"/v1/models"
MODEL = b"/v1/models/"


class RoutedRequest:
    """A call on its way to an engine."""

    __slots__ = (
        "_after_host",
        "_before_host",
        "_body",
        "_call",
        "_headers",
        "_look_up",
        "_operation",
        "decision",
        "key",
    )

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        operation: Operation,
        headers: list[Header],
        call: Call,
        decision: Decision,
        *,
        key: int | None,
        look_up: Callable[[], Route | None],
    ) -> None:
        self.decision = decision
        self.key = key
        self._operation = operation
        self._call = call
        self._look_up = look_up
        self._headers = headers
        self._make()

    def renew(self) -> bool:
        """Take the name's route of now; False where its client has none any more."""
        route = self._look_up()
        if route is None:
            return False
        if route is not self.decision.route:
            self.decision.route = route
            self._make()
        return True

    def parts(self, host_line: bytes) -> list[bytes | memoryview]:
        """The bytes for one pod."""
        return [self._before_host + host_line + self._after_host, *self._body]

    def _make(self) -> None:
        """Put together what the route decides."""
        route, call = self.decision.route, self._call
        edits = route.additions.edits(self._operation, call) if route.additions is not None else None
        self._body: Sequence[bytes | memoryview]
        if edits:
            self._body, length = splice(call.body, [*edits, (call.start, call.end, route.model)])
        else:
            self._body, length = call.with_model(route.model), call.length_with_model(route.model)
        if route.outside is None:
            self._before_host, lines = self._operation.start_line, request_lines(self._headers)
        else:
            self._before_host, lines = self._operation.start_line_at(route.outside), outside_lines(self._headers)
        self._after_host = b"%b%bcontent-length: %d\r\n\r\n" % (route.authorization, lines, length)


class Dispatcher:
    """The router's service: one for the process."""

    def __init__(
        self, settings: Settings, clients: Clients, metrics: Metrics, *, trust: ssl.SSLContext | None = None
    ) -> None:
        self.settings = settings
        self.clients = clients
        self.metrics = metrics
        self.pool = Pool(trust)
        self.gates = Gates(queue_length=settings.queue_length)
        self.judge = Judge(patience_seconds=settings.embedding_seconds, count=metrics.embedded)
        self.draining = False
        self.table: RouteTable | None = None
        self.connections: Connections[ClientConnection] = Connections(settings.max_connections)
        self.quota = Quota(settings.max_requests_per_client, retry_after_seconds=settings.retry_after_seconds)
        self.emptied = asyncio.Event()
        metrics.observe(pool=self.pool, gates=self.gates, connections=self.connections)

    def replace_table(self, table: RouteTable) -> None:
        """Use *table* from the next request on."""
        self.table = table
        self.pool.use(table.routes)
        self.gates.use(table.routes)
        self.metrics.keep({*table.routes, *table.unready, *table.everything.disabled})
        self.metrics.table_changed(len(table.routes), snapshot_age_seconds=table.snapshot_age_seconds)

    def generations(self) -> Mapping[str, int]:
        """The `metadata.generation` of each Expert of the table of now."""
        return self.table.generations if self.table is not None else {}

    # What the connections ask

    def opened(self, connection: ClientConnection) -> ApiError | None:
        """Know the connection, for sweeping and draining; the error where there are too many."""
        if self.connections.opened(connection):
            return None
        settings = self.settings
        return no_room(settings.max_connections, retry_after_seconds=settings.retry_after_seconds)

    def closed(self, connection: ClientConnection) -> None:
        """Forget it."""
        self.connections.closed(connection)
        if not self.connections:
            self.emptied.set()

    def refused(self, error: ApiError) -> None:
        """Count it."""
        self.metrics.count(NO_EXPERT, "refused", str(error.status))

    def admit(self, connection: ClientConnection, headers: list[Header]) -> str:
        """The client's name, with one request more under way."""
        client = self.authorize(headers)
        self.connections.known(connection)
        try:
            self.quota.enter(client)
        except ApiError:
            self.metrics.limited(client)
            raise
        return client

    def public(self, method: bytes, path: bytes) -> bool:
        """Whether it is of the page, in which nothing is."""
        return method == b"GET" and path in page.FILES

    def leave(self, client: str) -> None:
        """One request less."""
        self.quota.leave(client)

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

    def handle(self, connection: ClientConnection, request: Request) -> Running | None:
        """Answer, or start what will."""
        operation = _ENGINE_PATHS.get(request.path)
        try:
            if operation is None:
                return self._answer(connection, request)
            _require(request, b"POST")
            _require_plain(request)
            call = scan(request.body)
            retry_after = self.settings.retry_after_seconds
            learnt = self.judge.learnt
            found = resolve(self._view(request), call, operation, learnt=learnt, retry_after_seconds=retry_after)
            if isinstance(found, Decision):
                return self._start(connection, operation, request, call, found)
            return self._ask(connection, found, operation, request, call)
        except ApiError as error:
            self.refused(error)
            raise

    def _ask(
        self, connection: ClientConnection, asked: Question, operation: Operation, request: Request, call: Call
    ) -> Running | None:
        """Start when the text has been embedded."""

        def proceed(embeddings: Mapping[str, Floats], _: str) -> Exchange:
            return self._start(connection, operation, request, call, asked.decision(embeddings))

        return self.judge.ask(asked.wanted, proceed, lambda error: self._fail(connection, error))

    def _start(
        self, connection: ClientConnection, operation: Operation, request: Request, call: Call, decision: Decision
    ) -> Exchange:
        name = decision.route.name
        routed = RoutedRequest(
            operation,
            request.headers,
            call,
            decision,
            key=conversation(name, call.messages) if self.pool.has_choice(name) else None,
            look_up=lambda: self._view(request).routes.get(name),
        )
        gate = self.gates.of(decision.route)
        exchange = Exchange(connection, routed, pool=self.pool, gate=gate, settings=self.settings, on_done=self._done)
        self.metrics.in_flight += 1
        exchange.start()
        return exchange

    def _fail(self, connection: ClientConnection, error: ApiError) -> None:
        self.refused(error)
        connection.fail(error, b"")

    def _answer(self, connection: ClientConnection, request: Request) -> Running | None:
        path = request.path
        if path == MODELS:
            _require(request, b"GET")
            connection.respond(200, self._view(request).models)
        elif path == ROUTE:
            _require(request, b"POST")
            _require_plain(request)
            return self._explain(connection, request)
        elif path.startswith(MODEL):
            _require(request, b"GET")
            connection.respond(200, _card(self._view(request), _text(path.removeprefix(MODEL))))
        elif path in page.FILES:
            _require(request, b"GET")
            connection.hand_out(*page.FILES[path])
        else:
            where = f"{_text(request.method)} {_text(path)}"
            raise ApiError(404, f"unknown URL ({shown(where)})", code="unknown_url")
        return None

    def _explain(self, connection: ClientConnection, request: Request) -> Running | None:
        call = scan(request.body)
        view, retry_after = self._view(request), self.settings.retry_after_seconds
        asked = question(view, call, self.judge.learnt, retry_after_seconds=retry_after)

        def proceed(embeddings: Mapping[str, Floats], without: str) -> None:
            connection.respond(200, explain(call, asked, embeddings, without=without))

        if asked.wanted:
            return self.judge.ask(asked.wanted, proceed, lambda error: self._fail(connection, error))
        proceed({}, "")
        return None

    def _view(self, request: Request) -> View:
        """What the request's client sees."""
        if self.table is None:
            raise unavailable(
                "the router has just started and knows no expert yet; try again",
                code="starting",
                retry_after_seconds=self.settings.retry_after_seconds,
            )
        return self.table.of(request.client)

    def _done(self, exchange: Exchange, outcome: str) -> None:
        self.metrics.in_flight -= 1
        expert = exchange.decision.route.name
        self.metrics.count(expert, exchange.decision.reason, outcome)
        self.metrics.ended(expert, exchange)

    # Time

    async def drain(self, grace_seconds: float) -> None:
        """Let open requests end, but no longer than that."""
        self.draining = True
        for connection in self.connections:
            connection.drain()
        self.emptied.clear()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.emptied.wait()
        for connection in self.connections:
            connection.abort()
        self.pool.close()

    async def sweep(self, every_seconds: float) -> None:
        """End what has lasted too long, for ever; cheaper than a timer for each request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(every_seconds)
            now = loop.time()
            for connection in self.connections:
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


def _card(view: View, name: str) -> bytes:
    card = view.cards.get(name)
    if card is None:
        raise ApiError(
            404, f"no model named '{shown(name)}'; see GET /v1/models", code="model_not_found", param="model"
        )
    return card


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")
