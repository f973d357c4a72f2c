"""The endpoint that trainers post their progress to: HTTPS on a port of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from aiohttp import web

from largeforge.controllers.context import utc_now
from largeforge.controllers.metrics import PROGRESS_POSTS
from largeforge.controllers.progress import parse
from largeforge.controllers.progressboard import Board, Busy, Refused
from largeforge.controllers.progresstls import RENEW_SECONDS, ServerTls
from largeforge.controllers.progresstokens import Tokens, Untrusted
from largeforge.kube.cluster import ClusterError

log = logging.getLogger(__name__)

PATH = "/v1/progress"
BODY_BYTES = 16 * 1024
BODY_SECONDS = 10.0
"""How long a body may take to come."""
FLUSH_SECONDS = 0.25
"""So that a status that waits for its time does not wait much longer."""
RETRY_AFTER = "5"

_REFUSALS: dict[type[Exception], tuple[int, str, dict[str, str]]] = {
    Untrusted: (401, "", {"WWW-Authenticate": "Bearer"}),
    Refused: (403, "", {}),
    TimeoutError: (408, f"the body did not come in {BODY_SECONDS:.0f} s", {}),
    web.HTTPRequestEntityTooLarge: (413, f"the body is larger than {BODY_BYTES} bytes", {}),
    Busy: (429, "the pod posts more than once in a second", {"Retry-After": RETRY_AFTER}),
}
"""How each is answered; an empty text is the exception's own."""
_EXPECTED: tuple[type[Exception], ...] = (*_REFUSALS, ValueError, ClusterError)


@asynccontextmanager
async def serve_progress(port: int, tls: ServerTls, *, tokens: Tokens, board: Board) -> AsyncIterator[int]:
    """Take posts; yields the port, which is chosen where it was 0."""
    app = web.Application(client_max_size=BODY_BYTES)
    app.add_routes([web.post(PATH, _handler(tokens, board))])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, keepalive_timeout=15)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=tls.context).start()
        yield min(runner.addresses, key=len)[1]  # the IPv4 one, of which an address has fewer parts
    finally:
        await runner.cleanup()


async def keep_progress(port: int, tls: ServerTls, *, tokens: Tokens, board: Board) -> None:
    """Serve, write what waits and renew the certificate, for ever: a part of the operator."""
    tls.renew(now=utc_now())
    async with serve_progress(port, tls, tokens=tokens, board=board), asyncio.TaskGroup() as group:
        group.create_task(_every(FLUSH_SECONDS, board.flush))
        group.create_task(_every(RENEW_SECONDS, partial(_renew, tls)))


def _handler(tokens: Tokens, board: Board) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def post(request: web.Request) -> web.Response:
        try:
            await _take(request, tokens, board)
            answer = web.json_response({})
        except _EXPECTED as exc:
            answer = _refusal(exc)
        PROGRESS_POSTS.labels(str(answer.status)).inc()
        return answer

    return post


async def _take(request: web.Request, tokens: Tokens, board: Board) -> None:
    """Who it is comes first: nothing of a stranger's body is read."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Untrusted("there is no bearer token")
    pod = await tokens.pod_of(token.strip())
    async with asyncio.timeout(BODY_SECONDS):
        body = await request.read()
    await board.take(pod, parse(body))


def _refusal(exc: Exception) -> web.Response:
    status, text, headers = _REFUSALS.get(type(exc), (400, "", {}))
    if isinstance(exc, ClusterError):
        log.warning("progress was not taken: %s", exc)
        status, text, headers = 503, "the API server does not answer", {"Retry-After": RETRY_AFTER}
    return web.Response(status=status, text=f"{text or exc}\n", headers=headers)


async def _renew(tls: ServerTls) -> None:
    tls.renew(now=utc_now())


async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await act()
