from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from largeforge.router.metrics import GAP_SECONDS, Histogram, Metrics
from largeforge.router.usage import Usage, usage_of, without_content
from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    EXPERTS,
    LAST,
    STREAM,
    Lab,
    Received,
    Router,
    chat,
    chunk,
    completion,
    event,
    post,
    table_of,
    until,
    whole,
)

GENERAL = (("expert", "general"),)
NAME = "largeforge_router_"


def exported(router: Router) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """What Prometheus would read, by name and labels."""
    from prometheus_client import generate_latest

    text = generate_latest(router.dispatcher.metrics.registry()).decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix(NAME)
            found.setdefault(name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def usage(prompt: int, completion: int) -> bytes:
    return b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":null}' % (
        prompt,
        prompt + completion,
        completion,
    )


async def test_a_stream_gives_its_first_token_the_time_between_chunks_and_its_tokens(lab: Lab):
    arrived: asyncio.Queue[bytes] = asyncio.Queue()

    async def stream(received: Received) -> None:
        last = b'data: {"id":"c","choices":[],"usage":%b}\n\n' % usage(7, 3)
        for piece in (STREAM, *(chunk(event(text)) for text in "abc"), chunk(last), chunk(b"data: [DONE]\n\n"), LAST):
            await received.send(piece)
            if piece not in (STREAM, LAST):
                await arrived.get()  # the client has it: so the router has read it by itself

    engine = await lab.engine(stream)
    router = await lab.router(engine)
    client = await router.connect()
    await client.send(post(CHAT_STREAM))
    await client.until(b"\r\n\r\n")
    for _ in range(5):
        await client.until(b"\n\n\r\n")
        arrived.put_nowait(b"")
    await client.until(LAST)
    await router.idle()
    found = exported(router)
    assert found["time_to_first_token_seconds_count"] == {GENERAL: 1.0}
    assert found["time_between_chunks_seconds_count"] == {GENERAL: 1.0}
    assert found["request_duration_seconds_count"] == {GENERAL: 1.0}
    first, gap = found["time_to_first_token_seconds_sum"][GENERAL], found["time_between_chunks_seconds_sum"][GENERAL]
    whole_time = found["request_duration_seconds_sum"][GENERAL]
    assert 0 < first < first + 3 * gap <= whole_time * 1.001  # four events have three gaps
    assert found["tokens_total"] == {
        (("expert", "general"), ("type", "prompt")): 7.0,
        (("expert", "general"), ("type", "completion")): 3.0,
    }


async def test_an_answer_that_is_no_stream_has_a_duration_and_tokens_only(lab: Lab):
    body = completion()[:-1] + b',"usage": ' + usage(5, 2) + b"}"
    engine = await lab.engine(lambda received: received.send(whole(body)))
    router = await lab.router(engine)
    assert (await router.ask(post(CHAT))).status == 200
    await router.idle()
    found = exported(router)
    assert found["request_duration_seconds_count"] == {GENERAL: 1.0}
    assert "time_to_first_token_seconds_count" not in found or not any(
        found["time_to_first_token_seconds_count"].values()
    )
    assert sorted(found["tokens_total"].values()) == [2.0, 5.0]


async def test_a_stream_that_its_client_leaves_has_a_first_token_and_no_time_between_chunks(lab: Lab):
    async def stream(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await received.gone()

    engine = await lab.engine(stream)
    router = await lab.router(engine)
    client = await router.connect()
    await client.send(post(CHAT_STREAM))
    await client.until(b"\n\n\r\n")
    client.close()
    await router.idle()
    found = exported(router)
    assert found["time_to_first_token_seconds_count"] == {GENERAL: 1.0}
    assert found["time_between_chunks_seconds_count"] == {GENERAL: 0.0}
    assert found["requests_total"] == {(("code", "gone"), ("expert", "general"), ("reason", "fallback")): 1.0}


async def reset(received: Received) -> None:
    received.reset()


async def broken(received: Received) -> None:
    await received.send(STREAM + chunk(event("a")))
    received.reset()


@pytest.mark.parametrize(
    ("script", "settings", "kinds"),
    [
        (reset, {}, {"lost": 1}),
        (broken, {}, {"lost": 1}),
        (Received.gone, {"first_byte_seconds": 0.05}, {"silent": 1}),
        (lambda r: r.send(whole(b"{}", b"HTTP/1.1 500 X\r\n")), {}, {"status": 1}),
        (lambda r: r.send(whole(b"{}", b"HTTP/1.1 401 X\r\n")), {}, {"refused": 1}),
        (lambda r: r.send(whole(b"{}", b"HTTP/1.1 307 X\r\nlocation: http://x/\r\n")), {}, {"refused": 1}),
        (lambda r: r.send(whole(b'{"type":"NotFoundError"}', b"HTTP/1.1 404 X\r\n")), {}, {"unknown_model": 1}),
    ],
)
async def test_what_an_engine_does_wrong_is_counted_by_its_kind(lab: Lab, script: Any, settings: Any, kinds: Any):
    engine = await lab.engine(script)
    router = await lab.router(engine, **settings)
    client = await router.connect()
    await client.send(post(CHAT))
    await client.until(b"\r\n\r\n")
    await router.idle()
    found = exported(router)["upstream_errors_total"]
    assert {dict(labels)["kind"]: int(count) for labels, count in found.items()} == kinds
    assert {dict(labels)["expert"] for labels in found} == {"general"}


async def test_a_pod_that_takes_no_connection_counts_as_that_and_the_second_attempt_as_a_retry(lab: Lab):
    gone = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    await gone.wait_closed()
    engine = await lab.engine()
    router = await lab.router(port, engine)
    for number in range(8):
        assert (await router.ask(post(chat(str(number))))).status == 200
    found = exported(router)
    failed = found["upstream_errors_total"][(("expert", "general"), ("kind", "connect"))]
    assert failed == found["retries_total"][()] >= 1


async def test_pods_queue_and_connections_are_those_of_now(lab: Lab):
    engine = await lab.engine(Received.gone)
    router = await lab.router(engine)
    pod = (("engine", f"127.0.0.1:{engine.port}"),)
    client = await router.connect()
    await client.send(post(CHAT))
    await engine.request()
    found = exported(router)
    assert found["in_flight"][()] == found["engine_in_flight"][pod] == found["connections"][()] == 1
    assert found["engine_breaker_open"] == {pod: 0.0}
    peer = next(iter(router.dispatcher.pool.peers))
    for _ in range(9):
        peer.breaker.failed(0.0)
    assert exported(router)["engine_breaker_open"] == {pod: 1.0}
    client.close()
    await until(lambda: exported(router)["engine_in_flight"][pod] == 0)


async def test_who_waits_for_a_place_is_in_the_queue_and_not_under_way(lab: Lab):
    engine = await lab.engine(Received.gone)
    router = await lab.router(engine)
    fallback = "    routing: {fallback: true}"
    limited = EXPERTS.replace(fallback, f"{fallback}\n    limits: {{maxConcurrentRequests: 1}}")
    router.dispatcher.replace_table(table_of(engine.port, experts=limited))
    for _ in range(3):
        client = await router.connect()
        await client.send(post(CHAT))
    await until(lambda: router.dispatcher.metrics.in_flight == 3)
    found = exported(router)
    assert found["queue_length"] == {GENERAL: 2.0}
    assert found["in_flight"][()] == 1.0


async def test_a_client_over_its_limit_is_counted_by_its_name(lab: Lab):
    engine = await lab.engine(Received.gone)
    router = await lab.router(engine, max_requests_per_client=1)
    client = await router.connect()
    await client.send(post(CHAT))
    await engine.request()
    assert (await router.ask(post(CHAT))).status == 429
    assert exported(router)["client_limited_total"] == {(("client", "team"),): 1.0}


async def test_what_a_client_sends_makes_no_series(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    for number in range(20):
        await router.ask(post(json.dumps({"model": f"name-{number}", "messages": []}).encode()))
        await router.ask(post(CHAT, path=b"/v1/path-%d" % number))
    assert set(router.outcomes()) == {("", "refused", "404")}


async def test_an_expert_that_is_gone_leaves_no_series(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    await router.ask(post(CHAT))
    await router.ask(post(CHAT, key="wrong-key-0123456789"))
    await router.idle()
    metrics = router.dispatcher.metrics
    metrics.keep({"general"})
    assert exported(router)["request_duration_seconds_count"] == {GENERAL: 1.0}
    metrics.keep({"other"})
    found = exported(router)
    assert list(found["requests_total"]) == [(("code", "401"), ("expert", ""), ("reason", "refused"))]
    assert "request_duration_seconds_count" not in found


def test_a_histogram_counts_each_value_in_every_bucket_at_or_above_it():
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert histogram.sum == pytest.approx(7.65)
    assert sorted(GAP_SECONDS) == list(GAP_SECONDS)


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ([b'x"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}}'], Usage(5, 2)),
        ([b'x"usage": {"prompt_tokens": 5, "total_tokens": 5}}'], Usage(5, 0)),
        ([b'"usage":{"input_tokens":5,"output_tokens":2,"x":{}}'], Usage(5, 2)),
        ([b'"usage":{"prompt_tok', b'ens":5,"completion_tokens":2}', b"\r\n0\r\n\r\n"], Usage(5, 2)),
        ([b'"usage":{"prompt_tokens":1,"completion_tokens":1}', b'"usage":{"prompt_tokens":5,"completion_tokens":2}'],
         Usage(5, 2)),
        ([b'"usage":{"prompt_tokens":12\r\n5\r\n3,"completion_tokens":2}'], None),
        ([b'"usage":{"prompt_tokens":5,"completion_tokens":2}', b"x" * 5000], None),
        ([b'"content":"\\"usage\\":{\\"prompt_tokens\\":5,\\"completion_tokens\\":2}"'], None),
        ([b'"usage":null}'], None),
        ([], None),
    ],
)  # fmt: skip
def test_tokens_are_what_the_end_of_an_answer_says(last: Any, found: Any):
    assert usage_of(last) == found


def test_the_end_of_a_stream_is_no_content():
    assert without_content([b'data: {"a":1}\n\n', b"data: [DONE]\n\n", b"0\r\n\r\n"]) == 2
    assert without_content([b'data: {"a":1}\n\ndata: [DONE]\n\n0\r\n\r\n']) == 0


def test_each_metric_is_documented_with_its_labels():
    text = (Path(__file__).resolve().parents[3] / "docs" / "router.md").read_text()
    for family in Metrics().collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ",".join(family._labelnames)
        assert f"`{name}{{{labels}}}`" in text if labels else f"`{name}`" in text
