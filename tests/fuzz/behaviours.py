"""What clients send and how engines answer, well and badly."""

from __future__ import annotations

import asyncio

from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    LAST,
    OK,
    STREAM,
    Received,
    chunk,
    completion,
    event,
    get,
    post,
    whole,
)

WHOLE = completion("all of it")
EVENTS = (event("one"), event("two"), b"data: [DONE]\n\n")


async def answers(received: Received) -> None:
    await received.send(whole(WHOLE))


async def streams(received: Received) -> None:
    await received.send(STREAM + b"".join(map(chunk, EVENTS)) + LAST)


async def streams_slowly(received: Received) -> None:
    for piece in (STREAM, *map(chunk, EVENTS), LAST):
        for half in (piece[:7], piece[7:]):
            await received.send(half)
            await asyncio.sleep(0)


async def ends_with_the_connection(received: Received) -> None:
    await received.send(OK + b"\r\n" + WHOLE)
    received.writer.close()


async def breaks_off_without_framing(received: Received) -> None:
    await received.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + EVENTS[0])
    received.writer.close()


async def resets_at_once(received: Received) -> None:
    received.reset()


async def closes_at_once(received: Received) -> None:
    received.writer.close()


async def dies_within_its_head(received: Received) -> None:
    await received.send(STREAM[:20])
    received.reset()


async def dies_within_its_stream(received: Received) -> None:
    await received.send(STREAM + chunk(EVENTS[0]) + b"ff\r\nhalf")
    received.writer.close()


async def sends_too_little(received: Received) -> None:
    await received.send(OK + b"content-length: 900\r\n\r\n" + WHOLE)
    received.writer.close()


async def sends_too_much(received: Received) -> None:
    await received.send(whole(WHOLE) + b"HTTP/1.1 200 OK\r\n\r\nmore")


async def sends_garbage(received: Received) -> None:
    await received.send(b"\x00\x01garbage\r\n\r\n")


async def forgot_the_model(received: Received) -> None:
    await received.send(whole(b'{"error":{"type":"NotFoundError","code":404}}', b"HTTP/1.1 404 Not Found\r\n"))


async def redirects(received: Received) -> None:
    await received.send(whole(b"", b"HTTP/1.1 302 Found\r\nlocation: /\r\n"))


async def is_busy(received: Received) -> None:
    await received.send(whole(b"{}", b"HTTP/1.1 429 Busy\r\nretry-after: 1\r\n"))


async def hints_first(received: Received) -> None:
    await received.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + whole(WHOLE))


async def says_nothing(received: Received) -> None:
    await received.gone()


async def stops_within_its_stream(received: Received) -> None:
    await received.send(STREAM + chunk(EVENTS[0]))
    await received.gone()


async def floods(received: Received) -> None:
    await received.send(STREAM)
    for _ in range(20):
        await received.send(chunk(b"x" * 60_000))
    await received.send(LAST)


BEHAVIOURS = (
    answers,
    streams,
    streams_slowly,
    ends_with_the_connection,
    breaks_off_without_framing,
    resets_at_once,
    closes_at_once,
    dies_within_its_head,
    dies_within_its_stream,
    sends_too_little,
    sends_too_much,
    sends_garbage,
    forgot_the_model,
    redirects,
    is_busy,
    hints_first,
    says_nothing,
    stops_within_its_stream,
    floods,
)
CHUNKED = post(b"", headers=b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
WHOLE_REQUESTS = (post(CHAT), post(CHAT_STREAM), post(CHAT) + post(CHAT_STREAM))
REQUESTS = (
    *WHOLE_REQUESTS,
    post(CHAT_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"),
    CHUNKED + chunk(CHAT[:9]) + chunk(CHAT[9:]) + LAST,
    CHUNKED + chunk(CHAT) + LAST + post(CHAT),
    post(CHAT, headers=b"Expect: 100-continue\r\n"),
    post(CHAT, headers=b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    post(CHAT, headers=b"Connection: close\r\n"),
    post(CHAT)[:-4],
    post(CHAT)[:40],
    post(CHAT, key="wrong-key-0123456789"),
    post(b"{}"),
    get(b"/v1/models"),
    get(b"/nowhere"),
    b"nonsense\r\n\r\n",
)
SURE = frozenset((WHOLE, b"".join(EVENTS), b"x" * 1_200_000))
"""Every whole body of an engine's answer 200."""
