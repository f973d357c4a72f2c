"""Liveness, readiness and metrics, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from largeforge.controllers.metrics import REGISTRY


@asynccontextmanager
async def serve_health(port: int, *, ready: asyncio.Event, alive: Callable[[], bool]) -> AsyncIterator[int]:
    """Serve `/healthz`, `/readyz` and `/metrics`; yields the port, which is chosen where it was 0.

    Alive means that the event loop answers and no part of us has ended: nothing of it asks the API server, so that
    its outage restarts no operator. Ready means that the first list was seen.
    """

    async def healthz(_: web.Request) -> web.Response:
        return _answer(good=alive(), otherwise="a part of the operator has ended")

    async def readyz(_: web.Request) -> web.Response:
        return _answer(good=ready.is_set(), otherwise="the watches have not started")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield min(runner.addresses, key=len)[1]  # the IPv4 one, of which an address has fewer parts
    finally:
        await runner.cleanup()


def _answer(*, good: bool, otherwise: str) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text=f"{otherwise}\n")
