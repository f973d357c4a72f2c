from __future__ import annotations

import asyncio

import aiohttp

from largeforge.controllers.health import serve_health
from largeforge.controllers.metrics import RECONCILE_ERRORS


async def answers(port, *paths):
    async with aiohttp.ClientSession() as session:
        found = []
        for path in paths:
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                found.append((response.status, await response.text()))
        return found


async def test_it_is_alive_before_it_is_ready():
    ready = asyncio.Event()
    async with serve_health(0, ready=ready, alive=lambda: True) as port:
        (alive, _), (not_ready, said) = await answers(port, "/healthz", "/readyz")
        assert (alive, not_ready, said) == (200, 503, "the watches have not started\n")
        ready.set()
        assert await answers(port, "/readyz") == [(200, "ok\n")]


async def test_it_is_not_alive_when_a_part_has_ended():
    async with serve_health(0, ready=asyncio.Event(), alive=lambda: False) as port:
        assert [status for status, _ in await answers(port, "/healthz")] == [503]


async def test_metrics_have_our_names():
    RECONCILE_ERRORS.labels("things", "Timeout").inc()
    async with serve_health(0, ready=asyncio.Event(), alive=lambda: True) as port:
        (status, text), *_ = await answers(port, "/metrics")
    assert status == 200
    assert 'largeforge_operator_reconcile_errors_total{kind="things",reason="Timeout"} 1.0' in text
