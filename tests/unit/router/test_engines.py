"""Engines that misbehave: an error in OpenAI's shape before the first byte, a broken stream after it."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    LAST,
    OK,
    STREAM,
    Engine,
    Lab,
    Raw,
    Received,
    Router,
    answer,
    chunk,
    completion,
    event,
    post,
    until,
    whole,
)

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CUT = {("general", "fallback", "cut"): 1}


def error(found):
    body = json.loads(found.body)["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return found.status, body["code"]


async def rest(raw: Raw) -> bytes:
    """What comes until the end, be it orderly or a reset."""
    found = b""
    async with asyncio.timeout(5):
        try:
            while data := await raw.reader.read(65536):
                found += data
        except ConnectionResetError:
            return found + b"<reset>"
    return found


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
async def test_a_redirect_is_never_followed(lab: Lab, status: int):
    async def script(received: Received) -> None:
        where = b"location: http://127.0.0.1:%d/v1/chat/completions\r\n" % target.port
        await received.send(whole(b"", b"HTTP/1.1 %d Elsewhere\r\n" % status + where))

    target = await lab.engine()
    router = await lab.router(await lab.engine(script))
    assert error(await router.ask(post(CHAT))) == (502, "engine_error")
    assert target.connections == 0


ODD_HEADS = {
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhello",
    "the same length twice": OK + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"content-length: 5, 5\r\n\r\nhello",
    "a signed length": OK + b"content-length: +5\r\n\r\nhello",
    "chunks and a length": OK + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": STREAM.replace(b"HTTP/1.1", b"HTTP/1.0") + LAST,
    "identity": OK + b"transfer-encoding: identity\r\n\r\nhello",
    "a long line": OK + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
    "many fields": OK + b"x: y\r\n" * 300 + b"content-length: 0\r\n\r\n",
    "endless fields": OK + b"x: y\r\n" * 20_000,
    "a folded field": OK + b"x: y\r\n z\r\ncontent-length: 0\r\n\r\n",
    "a NUL": OK + b"x: y\x00\r\ncontent-length: 0\r\n\r\n",
    "bare LF": OK + b"x: y\ncontent-length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a wrong chunk at once": STREAM + b"xyz\r\n",
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9,
}


@pytest.mark.parametrize("sent", ODD_HEADS.values(), ids=ODD_HEADS.keys())
async def test_an_answer_with_two_meanings_is_an_error_and_nobody_else_is_asked(lab: Lab, sent: bytes):
    async def script(received: Received) -> None:
        await received.send(sent)
        await received.gone()

    engines = [await lab.engine(script) for _ in range(2)]
    router = await lab.router(*engines)
    assert error(await router.ask(post(CHAT))) == (502, "engine_error")
    assert sum(len(engine.received) for engine in engines) == 1
    await until(lambda: not any(engine.open for engine in engines))


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints\r\nlink: </x>"])
async def test_interim_answers_are_not_the_answer(lab: Lab, interim: bytes):
    async def script(received: Received) -> None:
        await received.send(b"HTTP/1.1 " + interim + b"\r\n\r\n")
        await received.send(whole(completion()))

    router = await lab.router(await lab.engine(script))
    found = await router.ask(post(CHAT))
    assert (found.status, found.body) == (200, completion())
    assert "link" not in found.headers


BROKEN = {
    "a reset": (b"", "reset"),
    "a reset within a chunk": (b"ff\r\ndata: half", "reset"),
    "an end within a chunk": (b"ff\r\ndata: half", "close"),
    "an end within a chunk's size": (b"f", "close"),
    "an end before the last chunk's end": (b"0\r\n", "close"),
    "an end within a trailer": (b"0\r\nx-trailer: y\r\n", "close"),
}


@pytest.mark.parametrize(("sent", "how"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_chunked_answer_that_breaks_off_never_ends_well(lab: Lab, sent: bytes, how: str):
    async def script(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(proceed.wait(), 5)
        await received.send(sent)
        if how == "reset":
            received.reset()
        else:
            received.writer.close()

    proceed = asyncio.Event()
    engines = [await lab.engine(script), await lab.engine(script)]
    router = await lab.router(*engines)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    await raw.until(event("a"))
    proceed.set()
    assert not (await rest(raw)).endswith(LAST)
    assert sum(len(engine.received) for engine in engines) == 1
    assert router.outcomes() == CUT


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_body_that_is_shorter_than_its_length_never_ends_well(lab: Lab, how: str):
    async def script(received: Received) -> None:
        await received.send(OK + b"content-length: 100\r\n\r\n{")
        await asyncio.wait_for(proceed.wait(), 5)
        if how == "reset":
            received.reset()
        else:
            received.writer.close()

    proceed = asyncio.Event()
    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT))
    await raw.until(b"\r\n\r\n{")
    proceed.set()
    assert (await rest(raw)) in (b"", b"<reset>")  # 99 bytes are missing, and the client sees it
    assert router.outcomes() == CUT


async def streamed(router: Router) -> bytes:
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    return (await rest(raw)).partition(b"\r\n\r\n")[2]


async def test_a_stream_without_framing_is_whole_only_with_its_last_event(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(EVENTS + b"\r\n" + event("a"))
        for piece in pieces:
            await received.send(piece)
            await asyncio.sleep(0)
        received.writer.close()

    router = await lab.router(await lab.engine(script))
    pieces = [event("b"), b"data: [DO", b"NE]\n\n"]
    assert await streamed(router) == event("a") + event("b") + b"data: [DONE]\n\n"
    pieces = [event("b")]
    assert (await streamed(router)).endswith(b"<reset>")
    assert router.outcomes() == {("general", "fallback", "200"): 1, ("general", "fallback", "cut"): 1}


async def test_a_framed_stream_without_its_last_event_is_handed_on_as_it_came(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")) + LAST)

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    assert (await raw.answer()).body == chunk(event("a")) + LAST


async def test_events_arrive_as_they_were_cut(lab: Lab):
    """UTF-8, `data:` and line ends split over chunks and packets, comments as pings, and all three line ends."""
    text = ': ping\n\ndata: {"x":"h\u00e4\u4f60\U0001f600"}\r\n\r\nevent: a\rdata: b\r\rdata: [DONE]\n\n'.encode()
    pieces = [chunk(text[n : n + 1]) for n in range(len(text))]

    async def script(received: Received) -> None:
        await received.send(STREAM)
        for piece in pieces:
            await received.send(piece)
            await asyncio.sleep(0)
        await received.send(LAST)

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    await raw.until(b"\r\n\r\n")
    assert await raw.reader.readexactly(len(b"".join(pieces) + LAST)) == b"".join(pieces) + LAST


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 O", OK, b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_an_engine_that_does_not_come_to_its_answer_is_given_up(lab: Lab, sent: bytes):
    async def script(received: Received) -> None:
        await received.send(sent)
        await received.gone()
        left.set()

    left = asyncio.Event()
    router = await lab.router(await lab.engine(script), first_byte_seconds=0.05)
    assert error(await router.ask(post(CHAT))) == (504, "engine_timeout")
    await asyncio.wait_for(left.wait(), 5)


@pytest.mark.parametrize(
    ("head", "end"), [(STREAM + chunk(event("a")), LAST), (OK + b"content-length: 5000\r\n\r\n{", b"}")]
)
async def test_an_engine_that_falls_silent_within_its_answer_is_cut(lab: Lab, head: bytes, end: bytes):
    async def script(received: Received) -> None:
        await received.send(head)
        await received.gone()
        left.set()

    left = asyncio.Event()
    router = await lab.router(await lab.engine(script), chunk_idle_seconds=0.1)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    assert not (await rest(raw)).endswith(end)
    await asyncio.wait_for(left.wait(), 5)
    assert router.outcomes() == CUT


async def test_an_engine_that_is_slow_but_not_silent_is_not_cut(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(STREAM)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + 1.2:  # several times the limit
            await received.send(chunk(event("a")))
            await asyncio.sleep(0.02)
        await received.send(LAST)

    router = await lab.router(await lab.engine(script), chunk_idle_seconds=0.4)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    assert (await raw.answer()).body.endswith(LAST)


async def test_an_engine_is_not_blamed_for_a_client_that_does_not_read(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(STREAM)
        for _ in range(200):
            await received.send(chunk(b"x" * 65_000))
        await received.send(LAST)

    router = await lab.router(await lab.engine(script), chunk_idle_seconds=0.05)
    raw = await router.connect()
    raw.writer.transport.pause_reading()
    await raw.send(post(CHAT_STREAM))
    await until(lambda: any(not c.writable for c in router.dispatcher.connections))
    (connection,) = router.dispatcher.connections
    looked = connection._running.deadline + 0.5
    await until(lambda: connection._running.deadline > looked)
    raw.writer.transport.resume_reading()
    async with asyncio.timeout(20):
        assert (await raw.reader.readuntil(b"\r\n" + LAST)).endswith(LAST)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_second_attempt_is_made_only_where_no_byte_has_come(lab: Lab, how: str):
    async def script(received: Received) -> None:
        if how == "close":
            received.writer.close()
        else:
            received.reset()

    bad, good = await lab.engine(script), await lab.engine()
    router = await lab.router(bad, good)
    raw = await router.connect()
    for _ in range(10):
        await raw.send(post(CHAT))
        assert (await raw.answer()).body == completion()
    assert len(good.received) == 10
    assert [r.body for r in good.received] == [CHAT.replace(b"auto", b"smol")] * 10
    assert router.outcomes() == {("general", "fallback", "200"): 10}


# Back-pressure towards an engine


async def test_an_engine_that_does_not_read_makes_the_router_hold_one_body_and_no_more(lab: Lab):
    release = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.wait_for(release.wait(), 10)
        engine = Engine(answer)
        await engine._serve(reader, writer)

    server = await asyncio.start_server(stuck, "127.0.0.1", 0, limit=1024)
    router = await lab.router(server.sockets[0].getsockname()[1])
    body = CHAT.replace(b"hi", b"x" * 4_000_000)
    raw = await router.connect()
    await raw.send(post(body))
    await until(lambda: any(c._running is not None for c in router.dispatcher.connections))
    (connection,) = router.dispatcher.connections
    await until(lambda: connection._running._upstream is not None)
    assert connection._running._upstream.transport.get_write_buffer_size() <= len(body) + 32 * 1024
    release.set()
    assert (await raw.answer()).status == 200
    server.close()
