"""The benchmark's own client, engine and table; the routers that it compares are not needed for that."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.benchmarkmodules import BENCHMARKS, modules_of
from tests.unit.router.lab import KEY, Lab, Received

FOLDER = BENCHMARKS / "router"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """A module of the benchmark, which is no package."""
    with modules_of(FOLDER, monkeypatch) as found:
        yield found


async def test_the_client_counts_what_the_engine_sends(module: Any):
    engine, load = module("engine"), module("load")
    server = await asyncio.get_running_loop().create_server(engine.Engine, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    whole = await load.together(port, load.request({}, "m"), clients=3, count=4)
    assert len(whole.seconds) == 12
    stream = await load.together(port, load.request({}, "m", stream=True, pieces=5, every_ms=1), clients=3, count=1)
    assert stream.pieces == 3 * 6  # and the usage
    assert len(stream.firsts) == 3
    server.close()


async def test_the_client_says_when_an_answer_is_none(lab: Lab, module: Any):
    load = module("load")
    router = await lab.router(await lab.engine(Received.gone))
    with pytest.raises(load.LoadError, match="401"):
        await load.together(router.port, load.request({}, "auto"), clients=1, count=1)


async def test_the_routers_table_has_two_hundred_patterns_of_which_one_is_in_the_prompt(lab: Lab, module: Any):
    engine, load, peers = module("engine"), module("load"), module("peers")
    server = await asyncio.get_running_loop().create_server(engine.Engine, "127.0.0.1", 0)
    documents = peers.documents(server.sockets[0].getsockname()[1], limits=peers.LIMITS)
    experts = [document for document in documents if "kind" in document]
    assert sum(len(expert["spec"]["routing"]["keywords"]) for expert in experts) == 200
    from largeforge.router import table_file

    router = await lab.router()
    router.dispatcher.replace_table(table_file.table(documents))
    for size in (1000, 220 * 1024):
        data = load.request({"Authorization": f"Bearer {KEY}"}, "auto", size=size)
        assert abs(len(data) - size) < 700
        await load.together(router.port, data, clients=1, count=1)
    assert router.outcomes() == {("expert-7", "keyword", "200"): 1, ("expert-0", "fallback", "200"): 1}
    server.close()


def test_the_picture_has_a_bar_for_each_router(module: Any):
    routers = {
        "direct": {"requests_per_second": 9.0},
        "largeforge": {"requests_per_second": 5.0},
        "x": {"version": "1"},
    }
    picture = module("picture").draw(routers)
    assert picture.count("<rect x=") == 2
    assert ">largeforge</text>" in picture


def test_a_figure_is_what_a_router_adds_in_the_same_round(module: Any):
    measure = module("measure")
    direct = measure.Subject(
        "direct", None, 0, None, {"latency_p50_ms": [1.0, 2.0, 9.0], "requests_per_second": [10.0] * 3}
    )
    peer = module("peers").Peer("x", lambda *_: [], "1")
    mine = measure.Subject("x", peer, 0, None, {"latency_p50_ms": [1.5, 2.4, 9.3], "requests_per_second": [5.0] * 3})
    mine.samples["closed_ms: uploading"] = [1.0, 5000.0]
    assert measure.figures(mine, direct) == {
        "version": "1",
        "added_latency_p50_ms": 0.4,
        "requests_per_second": 5.0,
        "share_of_no_hop": 0.5,
        "closed_ms: uploading p99": "never",
    }
