from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from largeforge.api.keys import report_token
from largeforge.api.routerreport import ProbeReport, RoutingReport
from largeforge.router.report import MOST_EXPERTS, Reports
from largeforge.router.server import Options, serving
from tests.unit.router.lab import KEY, Lab, get

TOKEN = report_token(b"k" * 32)
ASKED = datetime(2026, 11, 25, 8, tzinfo=UTC)


def test_what_nobody_knows_yet_is_left_out_and_the_experts_stand_by_name():
    reports = Reports(TOKEN, lambda: {"sql": 3, "poetry": 1})
    assert reports.now().manifest() == {
        "experts": [{"name": "poetry", "generation": 1}, {"name": "sql", "generation": 3}]
    }


def test_each_maker_is_asked_for_the_generation_of_now():
    learnt = {("sql", 2): RoutingReport(examples=1), ("sql", 3): RoutingReport(examples=20)}
    probed = {("sql", 2): ProbeReport(ok=True, time=ASKED)}
    reports = Reports(TOKEN, lambda: {"sql": 3})
    reports.routing = lambda name, generation: learnt.get((name, generation))
    reports.probes = lambda name, generation: probed.get((name, generation))
    (found,) = reports.now().experts
    assert (found.routing, found.probe) == (RoutingReport(examples=20), None)


def test_more_experts_than_a_report_may_have_are_cut_not_refused():
    reports = Reports(TOKEN, lambda: {f"e{n:04}": 1 for n in range(MOST_EXPERTS + 5)})
    assert len(reports.now().experts) == MOST_EXPERTS


async def fetch(router: Any, path: str, authorization: str | None, *, reports: Reports | None) -> tuple[int, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    headers = {} if authorization is None else {"authorization": authorization}
    options = Options("127.0.0.1", 0, port)
    async with (
        serving(router.dispatcher, options, ready=lambda: None, reports=reports),
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response,
    ):
        found = await response.json() if response.content_type == "application/json" else await response.text()
        return response.status, found


async def test_the_operator_reads_the_report_with_its_token(lab: Lab):
    router = await lab.router(await lab.engine())
    reports = Reports(TOKEN, router.dispatcher.generations)
    reports.probes = lambda name, _: ProbeReport(ok=True, time=ASKED) if name == "poetry" else None
    status, found = await fetch(router, "/report", f"bearer  {TOKEN}", reports=reports)
    assert status == 200
    assert found["experts"] == [
        {"name": "general", "generation": 0},
        {
            "name": "poetry",
            "generation": 0,
            "probe": {"ok": True, "message": "", "time": "2026-11-25T08:00:00Z"},
        },
    ]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}0", f"Bearer {KEY}", "Bearer \u00fc"],
)
async def test_nobody_else_reads_it(lab: Lab, authorization: str | None):
    router = await lab.router(await lab.engine())
    reports = Reports(TOKEN, router.dispatcher.generations)
    status, found = await fetch(router, "/report", authorization, reports=reports)
    assert status == 401
    assert "poetry" not in found
    assert TOKEN not in found


def test_bytes_that_are_no_text_are_a_wrong_token():
    assert not Reports(TOKEN, dict).may_read(f"Bearer {TOKEN}\udcff")


async def test_the_token_opens_nothing_on_the_clients_port(lab: Lab):
    router = await lab.router(await lab.engine())
    assert (await router.ask(get(b"/report", key=TOKEN))).status == 401
    assert (await router.ask(get(b"/report"))).status == 404


async def test_a_router_without_a_cluster_has_no_report(lab: Lab):
    router = await lab.router(await lab.engine())
    status, _ = await fetch(router, "/report", f"Bearer {TOKEN}", reports=None)
    assert status == 404
