from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from typing import Any

import pytest

from largeforge.router.endpoints import Pod
from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    LAST,
    OK,
    STREAM,
    Lab,
    Raw,
    Received,
    answer,
    chat,
    chunk,
    completion,
    event,
    get,
    post,
    table_of,
    until,
    whole,
)

PROMPT_ONLY = b'{"model":"general","prompt":"no conversation, so any pod is as good"}'
PROMPT = 0.1
"""Seconds within which the engine must see that the client has gone."""


def error(found: Any):
    return found.status, json.loads(found.body)["error"]["code"]


async def dies(received: Received):
    received.reset()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Before the first byte


async def test_an_engine_that_dies_before_the_first_byte_is_replaced_by_another(lab: Lab):
    bad, good = await lab.engine(dies), await lab.engine()
    router = await lab.router(bad, good)
    for n in range(8):
        assert (await router.ask(post(chat(f"hi {n}")))).status == 200
    assert len(good.received) == 8
    assert 1 <= len(bad.received) <= 8
    assert router.outcomes() == {("general", "fallback", "200"): 8}


async def test_two_engines_that_die_are_an_error_and_nobody_is_asked_a_third_time(lab: Lab):
    engines = [await lab.engine(dies) for _ in range(3)]
    router = await lab.router(*engines)
    found = await router.ask(post(CHAT))
    assert error(found) == (502, "engine_error")
    assert found.headers["x-largeforge-expert"] == "general"
    assert sum(len(engine.received) for engine in engines) == 2


async def test_a_pod_that_refuses_connections_is_replaced_by_another(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(free_port(), engine)
    for _ in range(3):
        assert (await router.ask(post(CHAT))).status == 200


async def test_a_single_pod_that_refuses_connections_is_an_error_with_retry_after(lab: Lab):
    router = await lab.router(free_port())
    found = await router.ask(post(CHAT))
    assert error(found) == (503, "engine_unavailable")
    assert found.headers["retry-after"] == "5"


async def test_a_kept_connection_that_the_engine_just_closed_is_replaced_on_the_same_pod(lab: Lab):
    async def script(received: Received) -> None:
        if received.connection == 1 and len(engine.received) == 2:
            received.reset()
        else:
            await answer(received)

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    for _ in range(2):
        await raw.send(post(CHAT))
        assert (await raw.answer()).status == 200
    assert engine.connections == 2
    assert router.dispatcher.metrics.retries == 1


async def test_a_new_connection_that_dies_is_not_tried_again_on_the_same_pod(lab: Lab):
    engine = await lab.engine(dies)
    router = await lab.router(engine)
    assert error(await router.ask(post(CHAT))) == (502, "engine_error")
    assert len(engine.received) == 1


async def forgot(received: Received):
    body = b'{"error":{"message":"The model `m` does not exist.","type":"NotFoundError","param":"model","code":404}}'
    await received.send(whole(body, b"HTTP/1.1 404 Not Found\r\n"))


async def test_an_engine_that_has_lost_the_model_is_replaced_by_another_and_never_a_404(lab: Lab):
    bad, good = await lab.engine(forgot), await lab.engine()
    router = await lab.router(bad, good)
    for n in range(8):
        assert (await router.ask(post(chat(f"hi {n}")))).status == 200
    assert len(good.received) == 8
    assert bad.received != []
    alone = await lab.router(bad)
    found = await alone.ask(post(CHAT))
    assert error(found) == (503, "engine_unavailable")
    assert "retry-after" in found.headers


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n",
        b"HTTP/1.1 401 Unauthorized\r\n",
        b"HTTP/1.1 403 Forbidden\r\n",
    ],
)
async def test_what_lies_between_router_and_engine_is_not_the_clients(lab: Lab, head: bytes):
    async def script(received: Received) -> None:
        await received.send(whole(b"secret", head))

    engine = await lab.engine(script)
    router = await lab.router(engine)
    found = await router.ask(post(CHAT))
    assert error(found) == (502, "engine_error")
    assert b"secret" not in found.raw
    assert "location" not in found.headers
    assert len(engine.received) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
        b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000,
    ],
)
async def test_what_is_not_http_is_an_error(lab: Lab, garbage: bytes):
    async def script(received: Received) -> None:
        await received.send(garbage)

    router = await lab.router(await lab.engine(script))
    assert error(await router.ask(post(CHAT))) == (502, "engine_error")


async def test_half_a_head_is_an_error_and_not_tried_again(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(b"HTTP/1.1 200 OK\r\nConte")
        received.writer.close()

    engines = [await lab.engine(script) for _ in range(2)]
    router = await lab.router(*engines)
    assert error(await router.ask(post(CHAT))) == (502, "engine_error")
    assert sum(len(engine.received) for engine in engines) == 1


async def test_a_silent_engine_is_given_up(lab: Lab):
    async def script(received: Received) -> None:
        await received.gone()

    router = await lab.router(await lab.engine(script), first_byte_seconds=0.05)
    raw = await router.connect()
    await raw.send(post(CHAT))
    assert error(await raw.answer()) == (504, "engine_timeout")
    await raw.send(get(b"/v1/models"))
    assert (await raw.answer()).status == 200


# After the first byte


@pytest.mark.parametrize("sent", [chunk(event("a")), chunk(event("a")) + b"ff\r\ndata: half", b""])
async def test_a_stream_that_breaks_off_is_seen_to_be_broken(lab: Lab, sent: bytes):
    async def script(received: Received) -> None:
        await received.send(STREAM + sent)
        received.writer.close()

    first, second = await lab.engine(script), await lab.engine(script)
    router = await lab.router(first, second)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    body = (await raw.rest()).partition(b"\r\n\r\n")[2]
    assert body == sent  # without the last chunk
    assert len(first.received) + len(second.received) == 1
    assert router.outcomes() == {("general", "fallback", "cut"): 1}


async def test_a_body_shorter_than_its_length_is_seen_to_be_short(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(OK + b"content-length: 100\r\n\r\nshort")
        received.writer.close()

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT))
    got = await raw.rest()
    assert b"content-length: 100" in got
    assert got.endswith(b"short")


async def test_a_broken_stream_without_framing_ends_in_a_reset(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(proceed.wait(), 5)
        received.writer.close()

    proceed = asyncio.Event()
    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await raw.until(event("a"))
    proceed.set()
    with pytest.raises(ConnectionResetError):
        await raw.rest()


SURPLUS = [
    (whole(completion()), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    (STREAM + chunk(event("a")) + LAST, b"HTTP/1.1 200 OK\r\n\r\n"),
    (STREAM + chunk(event("a")), b"zz\r\n"),
]


@pytest.mark.parametrize(("good", "bad"), SURPLUS)
async def test_an_answer_with_more_than_its_end_in_the_first_piece_is_an_error(lab: Lab, good: bytes, bad: bytes):
    async def script(received: Received) -> None:
        await received.send(good + bad)

    router = await lab.router(await lab.engine(script))
    found = await router.ask(post(CHAT))
    assert error(found) == (502, "engine_error")
    assert found.raw.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(("good", "bad"), SURPLUS)
async def test_bytes_that_are_no_part_of_the_answer_are_not_handed_on(lab: Lab, good: bytes, bad: bytes):
    async def script(received: Received) -> None:
        await received.send(good[:-3])
        await asyncio.wait_for(proceed.wait(), 5)
        await received.send(good[-3:] + bad)

    proceed = asyncio.Event()
    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT))
    got = await raw.until(b"\r\n\r\n")
    proceed.set()
    got += await raw.rest()
    assert got.count(b"HTTP/1.1") == 1
    assert bad not in got
    assert router.outcomes() == {("general", "fallback", "cut"): 1}


async def test_an_engine_that_speaks_unasked_is_hung_up_on(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(whole(completion()))
        await asyncio.wait_for(proceed.wait(), 5)
        await received.send(whole(b"unasked"))
        await received.gone()
        hung_up.set()

    proceed, hung_up = asyncio.Event(), asyncio.Event()
    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT))
    await raw.answer()
    proceed.set()
    await asyncio.wait_for(hung_up.wait(), 5)
    engine.script = answer
    await raw.send(post(CHAT))
    assert (await raw.answer()).body == completion()


# The client leaves


async def leave_and_time(raw: Raw, received: Received):
    loop = asyncio.get_running_loop()
    begun = loop.time()
    raw.close()
    async with asyncio.timeout(5):
        await received.gone()
    return loop.time() - begun


async def test_a_client_that_leaves_before_the_head_cancels(lab: Lab):
    async def script(_: Received) -> None:
        await asyncio.Event().wait()

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT))
    assert await leave_and_time(raw, await engine.request()) < PROMPT
    await router.idle()
    assert router.outcomes() == {("general", "fallback", "gone"): 1}


@pytest.mark.parametrize(
    ("head", "mark"), [(STREAM + chunk(event("a")), event("a")), (OK + b"content-length: 500\r\n\r\n{", b"\r\n\r\n{")]
)
async def test_a_client_that_leaves_amid_the_answer_cancels(lab: Lab, head: bytes, mark: bytes):
    async def script(received: Received) -> None:
        await received.send(head)
        await asyncio.Event().wait()

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    await raw.until(mark)
    assert await leave_and_time(raw, await engine.request()) < PROMPT
    await router.idle()
    assert router.outcomes() == {("general", "fallback", "gone"): 1}


async def test_a_client_that_leaves_while_it_uploads_never_reaches_an_engine(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT)[:-3])
    raw.close()
    await until(lambda: not router.dispatcher.connections)
    assert engine.received == []
    assert engine.connections == 0


async def test_a_client_that_leaves_while_the_engine_does_not_read_cancels(lab: Lab):
    engine = await lab.engine()
    release = asyncio.Event()

    async def stuck(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        seen.set()
        await release.wait()
        async with asyncio.timeout(5):
            try:
                while await reader.read(65536):
                    pass
            except ConnectionError:
                pass
        over.set()
        writer.close()

    seen, over = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(stuck, "127.0.0.1", 0, limit=1024)
    router = await lab.router(server.sockets[0].getsockname()[1])
    raw = await router.connect()
    body = CHAT.replace(b"hi", b"x" * 3_000_000)
    await raw.send(post(body))
    await asyncio.wait_for(seen.wait(), 5)
    raw.close()
    await router.idle()
    release.set()
    await asyncio.wait_for(over.wait(), 5)
    server.close()
    assert engine.received == []


async def test_a_client_that_leaves_while_a_connection_is_made_cancels(lab: Lab):
    # 192.0.2.0/24 is for documentation: nothing answers there, or the host says so at once.
    router = await lab.router(await lab.engine())
    table = router.dispatcher.table
    route = replace(table.routes["general"], pods=(Pod("192.0.2.1", 9),))
    view = replace(table.public, routes={"general": route}, fallback=route)
    router.dispatcher.replace_table(replace(table, everything=view, public=view))
    raw = await router.connect()
    await raw.send(post(CHAT))
    raw.close()
    await router.idle()
    await until(lambda: not router.dispatcher.connections)


async def test_a_client_that_leaves_behind_a_second_request_cancels_too(lab: Lab):
    async def script(_: Received) -> None:
        await asyncio.Event().wait()

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT) + post(CHAT))
    assert await leave_and_time(raw, await engine.request()) < PROMPT
    assert len(engine.received) == 1


# Choosing a pod


async def test_the_pod_with_the_fewest_requests_gets_the_next(lab: Lab):
    async def held(received: Received) -> None:
        await asyncio.wait_for(release.wait(), 5)
        await answer(received)

    release = asyncio.Event()
    engines = [await lab.engine(held) for _ in range(3)]
    router = await lab.router(*engines)
    raws = [await router.connect() for _ in range(6)]
    for raw in raws:
        await raw.send(post(PROMPT_ONLY, path=b"/v1/completions"))
    for engine in engines:
        await engine.request(2)
    release.set()
    for raw in raws:
        assert (await raw.answer()).status == 200
    assert [len(engine.received) for engine in engines] == [2, 2, 2]


async def test_pods_with_as_few_requests_take_turns(lab: Lab):
    engines = [await lab.engine() for _ in range(3)]
    router = await lab.router(*engines)
    raw = await router.connect()
    for _ in range(9):
        await raw.send(post(PROMPT_ONLY, path=b"/v1/completions"))
        await raw.answer()
    assert [len(engine.received) for engine in engines] == [3, 3, 3]


async def test_a_new_table_closes_what_is_idle_at_a_pod_that_left_and_nothing_else(lab: Lab):
    async def slow(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(release.wait(), 5)
        await received.send(LAST)

    release = asyncio.Event()
    old, new = await lab.engine(), await lab.engine()
    router = await lab.router(old)
    idle, busy = await router.connect(), await router.connect()
    await idle.send(post(CHAT))
    await idle.answer()
    old.script = slow
    await busy.send(post(CHAT_STREAM))
    await busy.until(event("a"))
    router.dispatcher.replace_table(table_of(new.port))
    await idle.send(post(CHAT))
    assert (await idle.answer()).status == 200
    assert len(new.received) == 1
    release.set()
    await busy.until(LAST)
    await until(lambda: not old.open)
