"""A client that goes away takes its request with it, in each of four phases, and none is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.router.lab import CHAT, CHAT_STREAM, OK, STREAM, Lab, Received, chunk, event, post, until

ROUNDS = 50


async def silent(received: Received) -> None:
    await received.gone()


async def between_chunks(received: Received) -> None:
    await received.send(STREAM + chunk(event("a")))
    await received.gone()


async def within_a_body(received: Received) -> None:
    await received.send(OK + b"content-length: 5000\r\n\r\n{")
    await received.gone()


PHASES = {
    "uploading": (silent, post(CHAT)[:-3], None),
    "before the head": (silent, post(CHAT), None),
    "between chunks": (between_chunks, post(CHAT_STREAM), event("a")),
    "not streaming": (within_a_body, post(CHAT), b"\r\n\r\n{"),
}


@pytest.mark.parametrize(("script", "request_", "mark"), PHASES.values(), ids=PHASES.keys())
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_every_client_that_leaves_ends_its_request(lab: Lab, script, request_, mark, how):
    engine = await lab.engine(script)
    router = await lab.router(engine)
    asked = not request_.endswith(CHAT[-9:-3])
    for number in range(1, ROUNDS + 1):
        raw = await router.connect()
        await raw.send(request_)
        if mark is not None:
            await raw.until(mark)
        elif asked:
            await engine.request(number)
        else:
            await until(lambda: router.dispatcher.quota.under_way)
        if how == "close":
            raw.writer.close()
        else:
            raw.close()
        await until(lambda: not router.dispatcher.connections)
    await until(lambda: not engine.open)
    assert router.dispatcher.quota.under_way == {}
    assert router.outcomes() == ({("general", "fallback", "gone"): ROUNDS} if asked else {})
    assert engine.connections == (ROUNDS if asked else 0)


async def test_many_clients_that_leave_at_once_end_all_of_their_requests(lab: Lab):
    engine = await lab.engine(between_chunks)
    router = await lab.router(engine)
    raws = [await router.connect() for _ in range(ROUNDS)]
    for raw in raws:
        await raw.send(post(CHAT_STREAM))
    for raw in raws:
        await raw.until(event("a"))
    for raw in raws:
        raw.close()
    await until(lambda: not engine.open)
    await router.idle()
    assert router.outcomes() == {("general", "fallback", "gone"): ROUNDS}


async def test_a_client_that_leaves_within_a_long_answer_that_it_does_not_read_ends_it_too(lab: Lab):
    async def endless(received: Received) -> None:
        await received.send(STREAM)
        while not received.writer.is_closing():
            await received.send(chunk(b"x" * 65_000))

    engine = await lab.engine(endless)
    router = await lab.router(engine)
    raw = await router.connect()
    raw.writer.transport.pause_reading()
    await raw.send(post(CHAT_STREAM))
    await until(lambda: any(not c.writable for c in router.dispatcher.connections))
    raw.close()
    await until(lambda: not engine.open)
    await asyncio.wait_for(router.idle(), 5)
