"""The corners of HTTP/1.1, by raw sockets."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    KEY,
    LAST,
    STREAM,
    Answer,
    chunk,
    completion,
    event,
    get,
    post,
    until,
)

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(CHAT)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"

REFUSED = {
    "length and chunks": HEAD + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": HEAD + CHUNKED + LENGTH + b"\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": HEAD + LENGTH + b"Content-Length: 1\r\n\r\n" + CHAT,
    "the same length twice": HEAD + LENGTH + LENGTH + b"\r\n" + CHAT,
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length in hex": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "an empty length": HEAD + b"Content-Length: \r\n\r\nhello",
    "an endless length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "a space before the colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a second coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in 1.0": HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED + b"\r\n0\r\n\r\n",
    "bare LF after the start line": HEAD.replace(b"\r\n", b"\n", 1) + b"\r\n",
    "bare LF after a header": HEAD + b"X: a\nContent-Length: 0\r\n\r\n",
    "bare LF at the end": HEAD + b"X: a\r\n\n",
    "bare CR": HEAD + b"X: a\rContent-Length: 0\r\n\r\n",
    "a folded header": HEAD + b"X: a\r\n b\r\n\r\n",
    "a folded first header": HEAD.replace(b"\r\n", b"\r\n ", 1) + b"\r\n",
    "a NUL": HEAD + b"X: a\x00b\r\n\r\n",
    "no name": HEAD + b": a\r\n\r\n",
    "a space in a name": HEAD + b"A b: c\r\n\r\n",
    "bare LF in chunks": HEAD + CHUNKED + b"\r\n5\nhello\n0\n\n",
    "bare LF in an extension": HEAD + CHUNKED + b"\r\n5;a\nhello\r\n0\r\n\r\n",
    "0x in a chunk": HEAD + CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a space in a chunk": HEAD + CHUNKED + b"\r\n5 \r\nhello\r\n0\r\n\r\n",
    "an endless chunk": HEAD + CHUNKED + b"\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a chunk without its end": HEAD + CHUNKED + b"\r\n5\r\nhello0\r\n\r\n",
    "no Host": b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n",
    "two Hosts": HEAD + b"Host: other\r\n\r\n",
    "an absolute target": HEAD.replace(b"/v1/", b"http://other/v1/") + b"\r\n",
    "CONNECT": b"CONNECT engine:8000 HTTP/1.1\r\nHost: engine\r\n\r\n",
    "CONNECT with a key": HEAD.replace(b"POST /v1/chat/completions", b"CONNECT engine:8000") + b"\r\n",
    "a length that hides behind Upgrade": HEAD + LENGTH * 2 + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + CHAT,
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: r\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00",
    "an unknown method": b"FETCH / HTTP/1.1\r\nHost: r\r\n\r\n",
    "a control character in the target": b"GET /v1/\x01 HTTP/1.1\r\nHost: r\r\n\r\n",
    "an unknown version": b"GET /v1/models HTTP/1.2\r\nHost: r\r\n\r\n",
}


@pytest.mark.parametrize("request_", REFUSED.values(), ids=REFUSED.keys())
async def test_a_request_with_two_meanings_is_refused_and_the_connection_closed(lab, request_):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(request_)
    got = Answer(await raw.rest())
    assert got.status == 400
    assert json.loads(got.body)["error"]["code"] == "malformed_request"
    assert got.headers["connection"] == "close"
    assert engine.received == []


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
WEBSOCKET = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize("upgrade", [UPGRADE, WEBSOCKET, b"Upgrade: h2c\r\n"])
async def test_an_upgrade_is_ignored_and_the_connection_stays_http_1_1(lab, upgrade):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    chunked = HEAD + CHUNKED + upgrade + b"\r\n" + chunk(CHAT[:9]) + chunk(CHAT[9:]) + LAST
    for request in (post(CHAT, headers=upgrade), chunked, get(b"/v1/models"), post(CHAT)):
        await raw.send(request)
        assert (await raw.answer()).status == 200
    assert [r.body for r in engine.received] == [CHAT.replace(b"auto", b"smol")] * 3
    assert not {"upgrade", "http2-settings", "connection"} & set(engine.received[0].headers)


async def test_an_upgrade_byte_by_byte_with_a_request_behind_it_is_ignored_too(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    for byte in post(CHAT, headers=UPGRADE) + SMUGGLED.replace(b"Host", b"Connection: close\r\nUpgrade: x\r\nHost"):
        await raw.send(bytes([byte]))
    assert [(await raw.answer()).status for _ in range(2)] == [200, 200]
    assert await raw.rest() == b""


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9"])
async def test_other_versions_are_refused(lab, version):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(SMUGGLED.replace(b"HTTP/1.1", version))
    assert Answer(await raw.rest()).status == 505


async def test_a_prior_knowledge_of_http_2_is_refused(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert Answer(await raw.rest()).status in (400, 505)


async def test_what_follows_a_chunked_request_in_one_piece_is_not_answered(lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(HEAD + CHUNKED + b"\r\n" + chunk(CHAT) + LAST + SMUGGLED)
    got = await raw.rest()
    assert got.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in got
    assert got.endswith(completion())
    assert len(engine.received) == 1


async def test_empty_lines_before_a_request_are_skipped(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(post(CHAT) + b"\r\n" + post(CHAT) + b"\r\n\r\n" + SMUGGLED)
    assert [(await raw.answer()).status for _ in range(3)] == [200, 200, 200]


# Keep-alive and half-close


async def test_errors_about_a_whole_request_leave_the_connection_usable(lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    wrong = [
        post(b"not json"),
        post(CHAT.replace(b"auto", b"nobody")),
        get(b"/v1/nothing"),
        get(b"/v1/chat/completions"),
        post(CHAT, headers=b"Content-Encoding: br\r\n"),
        post(b"[" * 5000),
    ]
    statuses = []
    for request in wrong:
        await raw.send(request + post(CHAT))
        statuses += [(await raw.answer()).status, (await raw.answer()).status]
    assert statuses == [400, 200, 404, 200, 404, 200, 405, 200, 415, 200, 400, 200]
    assert len(engine.received) == len(wrong)


async def test_a_client_that_has_sent_all_and_closed_its_half_gets_what_the_router_answers_itself(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    raw.writer.write(get(b"/v1/models"))
    raw.writer.write_eof()
    assert Answer(await raw.rest()).status == 200


async def test_a_half_closed_connection_counts_as_a_client_that_left(lab):
    async def script(received):
        await received.gone()
        left.set()

    left = asyncio.Event()
    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    raw.writer.write(post(CHAT))
    await engine.request()
    raw.writer.write_eof()
    assert await raw.rest() == b""
    await asyncio.wait_for(left.wait(), 5)
    assert router.outcomes() == {("general", "fallback", "gone"): 1}


# Pipelining


async def test_pipelined_requests_are_answered_in_order(lab):
    async def script(received):
        await asyncio.sleep(0)
        await received.send(STREAM + chunk(received.body) + LAST)

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    bodies = [CHAT.replace(b"hi", b"%d" % n) for n in range(5)]
    await raw.send(b"".join(map(post, bodies)))
    for body in bodies:
        assert (await raw.answer()).body == chunk(body.replace(b"auto", b"smol")) + LAST


async def test_pipelined_requests_may_come_in_pieces_and_among_answers_of_the_router_itself(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    data = (get(b"/v1/models") + post(CHAT) + get(b"/v1/nothing") + post(CHAT_STREAM)) * 3
    for at in range(0, len(data), 37):
        await raw.send(data[at : at + 37])
        await asyncio.sleep(0)
    assert [(await raw.answer()).status for _ in range(12)] == [200, 200, 404, 200] * 3


async def test_one_request_at_a_time_reaches_an_engine(lab):
    async def script(received):
        await asyncio.wait_for(release.wait(), 5)
        await received.send(STREAM + LAST)

    release = asyncio.Event()
    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT) * 3)
    await engine.request()
    assert len(engine.received) == 1
    release.set()
    for _ in range(3):
        await raw.answer()
    assert engine.connections == 1


async def test_what_a_client_sends_while_it_is_answered_is_bounded(lab):
    async def script(received):
        await asyncio.wait_for(release.wait(), 5)
        await received.send(STREAM + LAST)

    release = asyncio.Event()
    engine = await lab.engine(script)
    router = await lab.router(engine, max_body_bytes=10_000, max_head_bytes=2000)
    raw = await router.connect()
    await raw.send(post(CHAT))
    await engine.request()
    await raw.send(b"x" * 100_000)
    (connection,) = router.dispatcher.connections
    await until(lambda: connection._overflow)
    assert len(connection._pending) == 0
    release.set()
    assert (await raw.rest()).endswith(LAST)  # and then it closes
    assert len(engine.received) == 1


async def test_a_client_that_reads_nothing_is_not_answered_for_ever(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    raw.writer.transport.pause_reading()
    request = get(b"/v1/models")
    raw.writer.write(request * 30_000)
    await until(lambda: any(not c.writable for c in router.dispatcher.connections))
    (connection,) = router.dispatcher.connections
    assert connection._transport.get_write_buffer_size() < 1_000_000
    assert len(connection._pending) < 5_000_000


# Limits


async def test_a_long_body_is_refused_before_it_is_read(lab):
    engine = await lab.engine()
    router = await lab.router(engine, max_body_bytes=5000)
    raw = await router.connect()
    await raw.send(HEAD + b"Content-Length: 5001\r\n\r\n" + b"x" * 100)
    got = Answer(await raw.rest())
    assert (got.status, json.loads(got.body)["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("piece", [chunk(b"x" * 1000), b"1\r\nx\r\n", b"1;" + b"e" * 500 + b"\r\nx\r\n"])
async def test_a_long_chunked_body_is_refused_as_it_grows(lab, piece):
    router = await lab.router(await lab.engine(), max_body_bytes=5000, max_head_bytes=1024)
    raw = await router.connect()
    raw.writer.write(HEAD + CHUNKED + b"\r\n" + piece * 5000)
    assert Answer(await raw.rest()).status == 413


async def test_a_body_of_just_the_limit_is_taken(lab):
    router = await lab.router(await lab.engine(), max_body_bytes=5000)
    body = CHAT.replace(b"hi", b"x" * (5000 - len(CHAT) + 2))
    assert len(body) == 5000
    assert (await router.ask(post(body))).status == 200


@pytest.mark.parametrize("headers", [b"X: y\r\n" * 101, b"X: " + b"y" * 33_000 + b"\r\n", b"X: " + b"y" * 33_000])
async def test_long_and_many_headers_are_refused(lab, headers):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(HEAD + headers + b"\r\n")
    assert Answer(await raw.rest()).status == 431


async def test_a_slow_head_is_refused(lab):
    router = await lab.router(await lab.engine(), head_seconds=0.1)
    raw = await router.connect()
    await raw.send(HEAD)
    assert Answer(await raw.rest()).status == 408


async def test_drops_of_a_head_do_not_buy_time(lab):
    router = await lab.router(await lab.engine(), head_seconds=0.1)
    raw = await router.connect()
    await raw.send(HEAD)
    answer = asyncio.create_task(raw.rest())
    async with asyncio.timeout(5):
        while not answer.done():
            raw.writer.write(b"X")
            await asyncio.sleep(0.01)
    assert Answer(answer.result()).status == 408


async def test_a_body_that_stops_is_refused(lab):
    router = await lab.router(await lab.engine(), body_idle_seconds=0.1)
    raw = await router.connect()
    await raw.send(post(CHAT)[:-5])
    assert Answer(await raw.rest()).status == 408


async def test_an_idle_connection_is_closed(lab):
    router = await lab.router(await lab.engine(), keep_alive_seconds=0.1)
    raw = await router.connect()
    await raw.send(post(CHAT))
    await raw.answer()
    assert await raw.rest() == b""


async def test_a_connection_that_says_nothing_is_closed(lab):
    router = await lab.router(await lab.engine(), head_seconds=0.1)
    raw = await router.connect()
    assert await raw.rest() == b""


# Expect


async def test_expect_is_answered_before_the_body(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    request = post(CHAT, headers=b"Expect: 100-continue\r\n")
    await raw.send(request[: -len(CHAT)])
    assert await raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await raw.send(CHAT)
    assert (await raw.answer()).status == 200


async def test_expect_with_the_body_at_once_needs_no_word(lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    found = await router.ask(post(CHAT, headers=b"Expect: 100-continue\r\n"))
    assert found.status == 200
    assert "expect" not in (await engine.request()).headers


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(CHAT, headers=b"Expect: 100-continue\r\n", key="wrong-key-0123456789")[: -len(CHAT)], 401),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
        (HEAD + LENGTH + b"Expect: the-unexpected\r\n\r\n", 417),
    ],
)
async def test_expect_is_not_answered_to_who_is_refused(lab, request_, status):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(request_)
    assert Answer(await raw.rest()).status == status


async def test_a_head_request_gets_no_body(lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(get(b"/v1/models").replace(b"GET", b"HEAD").replace(b"Host", b"Connection: close\r\nHost"))
    got = Answer(await raw.rest())
    assert (got.status, got.body) == (405, b"")


async def test_a_compressed_body_is_refused(lab):
    router = await lab.router(await lab.engine())
    assert (await router.ask(post(CHAT, headers=b"Content-Encoding: gzip\r\n"))).status == 415


# Back-pressure


async def test_a_slow_client_slows_the_engine_and_fills_no_buffer(lab):
    total = 40_000_000
    block = chunk(b"x" * 65_000)
    sent = 0

    async def script(received):
        nonlocal sent
        await received.send(STREAM)
        while sent < total:
            await received.send(block)
            sent += len(block)
        await received.send(LAST)

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    raw.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    raw.writer.transport.pause_reading()
    await raw.send(post(CHAT_STREAM, headers=b"Connection: close\r\n"))
    await until(lambda: any(not c.writable for c in router.dispatcher.connections))
    async with asyncio.timeout(5):
        before = -1
        while sent != before:  # the engine is stuck
            before = sent
            await asyncio.sleep(0.05)
    (connection,) = router.dispatcher.connections
    assert connection._transport.get_write_buffer_size() < 600_000
    assert sent < total / 2
    raw.writer.transport.resume_reading()
    got = 0
    async with asyncio.timeout(20):
        while data := await raw.reader.read(1 << 20):
            got += len(data)
    assert got > total


async def test_a_client_that_stops_reading_is_cut_in_the_end(lab):
    async def script(received):
        await received.send(STREAM)
        while True:
            await received.send(chunk(b"x" * 65_000))

    engine = await lab.engine(script)
    router = await lab.router(engine, write_stall_seconds=0.1)
    raw = await router.connect()
    raw.writer.transport.pause_reading()
    await raw.send(post(CHAT_STREAM))
    await engine.request()
    await router.idle()
    assert router.outcomes() == {("general", "fallback", "gone"): 1}


async def test_a_slow_stream_does_not_hold_up_another(lab):
    async def script(received):
        await received.send(STREAM)
        for n in range(200):
            await received.send(chunk(event(f"{n}") * 50))
        await received.send(LAST)

    router = await lab.router(await lab.engine(script))
    slow = await router.connect()
    slow.writer.transport.pause_reading()
    await slow.send(post(CHAT_STREAM))
    for _ in range(5):
        assert (await router.ask(post(CHAT_STREAM))).body.endswith(LAST)
