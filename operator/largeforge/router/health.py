"""The second port: health for the kubelet, metrics for Prometheus, and what the operator is told.

An ordinary small server, since it is not hot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from largeforge.router.report import Reports


def application(
    registry: CollectorRegistry, *, ready: Callable[[], str | None], reports: Reports | None = None
) -> web.Application:
    """`/healthz`, `/readyz` (503 with the cause that *ready* returns), `/metrics`, and `/report` where there is one."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = ready()
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    if reports is not None:
        app.add_routes([web.get("/report", _report(reports))])
    return app


def _report(reports: Reports) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def report(request: web.Request) -> web.Response:
        if not reports.may_read(request.headers.get("authorization", "")):
            text = "no valid report token; the operator computes it from the namespace's key\n"
            return web.Response(text=text, status=401, headers={"www-authenticate": "Bearer"})
        return web.json_response(reports.now().manifest())

    return report
