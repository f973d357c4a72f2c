from __future__ import annotations

import aiohttp
import pytest

from largeforge.router import load
from largeforge.router.load import LoadError, Loads, under_way
from largeforge.router.pool import Pool
from tests.unit.router.lab import Engine, Lab, Received, table_of, whole

METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m {odd} name"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0"} 0.5
"""


def test_what_runs_and_what_waits_counts_of_all_the_engines_processes():
    assert under_way(METRICS) == 9
    assert under_way(b"vllm:num_requests_running 1.0\n") == 1


@pytest.mark.parametrize(
    "text", [b"", b"other 1\n", b"vllm:num_requests_running x\n", b"vllm:num_requests_running NaN\n"]
)
def test_an_engine_that_does_not_say_it_has_no_load(text: bytes):
    with pytest.raises(LoadError):
        under_way(text)


def said(text: bytes, *, head: bytes = b"HTTP/1.1 200 OK\r\n"):
    async def script(received: Received) -> None:
        assert received.head.startswith(b"GET /metrics HTTP/1.1\r\n")
        assert b"authorization" not in received.head.lower()
        await received.send(whole(text, head))

    return script


def pool_of(*engines: Engine):
    pool = Pool()
    pool.use(table_of(*(engine.port for engine in engines)).routes)
    for peer in pool.peers:
        peer.in_flight = 2
    return pool


async def one_round(*engines: Engine):
    pool = pool_of(*engines)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
        await Loads(pool, every_seconds=1).round(session)
    found = {peer.pod.port: (peer.fresh, peer.foreign) for peer in pool.peers}
    return [found[engine.port] for engine in engines]


async def test_what_the_engine_has_beyond_our_own_requests_is_others(lab: Lab):
    busy = await lab.engine(said(METRICS))
    calm = await lab.engine(said(b"vllm:num_requests_running 1.0\n"))
    assert await one_round(busy, calm) == [(True, 7), (True, 0)]


@pytest.mark.parametrize(
    ("text", "head"),
    [
        (METRICS, b"HTTP/1.1 404 Not Found\r\n"),
        (METRICS, b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /metrics\r\n"),
        (b"nothing", b"HTTP/1.1 200 OK\r\n"),
        (METRICS + b"x" * 2000, b"HTTP/1.1 200 OK\r\n"),
    ],
)
async def test_an_engine_that_answers_otherwise_has_no_figure(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, text: bytes, head: bytes
):
    monkeypatch.setattr(load, "MOST_BYTES", 1500)
    assert await one_round(await lab.engine(said(text, head=head))) == [(False, 0)]


async def test_a_silent_engine_does_not_hold_up_the_others(lab: Lab):
    silent, busy = await lab.engine(Received.gone), await lab.engine(said(METRICS))
    assert await one_round(silent, busy) == [(False, 0), (True, 7)]


async def test_a_figure_is_fresh_for_three_rounds_without_a_word(lab: Lab):
    async def once(received: Received) -> None:
        await said(METRICS if len(engine.received) == 1 else b"")(received)

    now = 100.0
    engine = await lab.engine(once)
    pool = pool_of(engine)
    (peer,) = pool.peers
    loads = Loads(pool, every_seconds=5, clock=lambda: now)
    found = []
    async with aiohttp.ClientSession() as session:
        for now in (100.0, 105.0, 110.0, 114.9, 115.0):  # noqa: B007 - the clock reads it
            await loads.round(session)
            found.append(peer.fresh)
    assert found == [True, True, True, True, False]


async def test_a_pod_that_came_back_is_fresh_only_when_it_has_said_something(lab: Lab):
    engine = await lab.engine(said(METRICS))
    pool = pool_of(engine)
    async with aiohttp.ClientSession() as session:
        await Loads(pool, every_seconds=5).round(session)
    pool.use({})
    pool.use(table_of(engine.port).routes)
    assert [peer.fresh for peer in pool.peers] == [False]
