from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    ENGINE_KEY,
    KEY,
    LAST,
    OK,
    STREAM,
    Lab,
    Received,
    Router,
    chunk,
    completion,
    event,
    get,
    post,
    whole,
)


def client(router: Router, **options: Any):
    return openai.AsyncOpenAI(base_url=router.url, api_key=KEY, max_retries=0, timeout=5, **options)


async def test_the_official_client_gets_a_completion(lab: Lab):
    router = await lab.router(await lab.engine())
    async with client(router) as api:
        found = await api.chat.completions.with_raw_response.create(
            model="auto", messages=[{"role": "user", "content": "write a sonnet"}]
        )
    assert found.headers["x-largeforge-expert"] == "poetry"
    assert found.headers["x-largeforge-reason"] == "keyword"
    assert found.headers["x-largeforge-score"] == "0.67"
    assert found.parse().choices[0].message.content == "hello"


async def test_the_official_client_gets_a_stream(lab: Lab):
    router = await lab.router(await lab.engine())
    async with client(router) as api:
        stream = await api.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        texts = [part.choices[0].delta.content async for part in stream]
    assert texts == ["Hel", "lo"]


async def test_the_official_client_lists_models(lab: Lab):
    router = await lab.router(await lab.engine())
    async with client(router) as api:
        assert [model.id async for model in api.models.list()] == ["auto", "general", "poetry", "smol"]
        assert (await api.models.retrieve("poetry")).id == "poetry"
        with pytest.raises(openai.NotFoundError, match="no model named 'nobody'"):
            await api.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("request_", "error", "code"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        ({"model": 3}, openai.BadRequestError, "invalid_type"),
    ],
)
async def test_the_official_client_understands_errors(
    lab: Lab, request_: dict[str, Any], error: type[Exception], code: str
):
    router = await lab.router(await lab.engine())
    async with client(router) as api:
        with pytest.raises(error) as caught:
            await api.chat.completions.create(messages=[{"role": "user", "content": "hi"}], **request_)
    assert caught.value.code == code
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("model", "sent", "told"),
    [
        ("poetry", "poetry", ["poetry", "pinned", "1.00"]),
        ("general", "smol", ["general", "pinned", "1.00"]),
        ("smol", "smol", ["smol", "base", "1.00"]),
        ("auto", "smol", ["general", "fallback", "0.00"]),
    ],
)
async def test_the_engine_gets_the_name_that_it_knows(lab: Lab, model: str, sent: str, told: list[str]):
    engine = await lab.engine()
    router = await lab.router(engine)
    found = await router.ask(post(CHAT.replace(b"auto", model.encode())))
    assert json.loads((await engine.request()).body)["model"] == sent
    assert [found.headers[f"x-largeforge-{name}"] for name in ("expert", "reason", "score")] == told


async def test_all_other_bytes_of_the_body_stay_as_they_are(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    body = b' {"x" :1e5, "messages":[{"role":"user","content":"h\\u00e4 \xc3\xa9"}],\r\n\t"model" : "auto" ,"seed":00}'
    body = body.replace(b":00", b":0")
    await router.ask(post(body))
    assert (await engine.request()).body == body.replace(b'"auto"', b'"smol"')


async def test_completions_are_passed_through_alike(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    found = await router.ask(post(b'{"model":"auto","prompt":"a haiku, please"}', path=b"/v1/completions?x=1"))
    assert found.headers["x-largeforge-expert"] == "poetry"
    assert (await engine.request()).head.startswith(b"POST /v1/completions HTTP/1.1\r\n")


async def test_the_engine_gets_its_own_key_and_nothing_that_the_client_may_not_say(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    headers = (
        b"X-LargeForge-Expert: general\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nCookie: a=b\r\n"
        b"TE: trailers\r\nProxy-Authorization: Basic xx\r\nX-Api-Key: abc\r\nX-Request-Id: r-1\r\n"
        b"X-Data-Parallel-Rank: 3\r\nKeep-Alive: timeout=5\r\n"
    )
    await router.ask(post(CHAT, headers=headers))
    received = await engine.request()
    assert received.headers == {
        "host": f"127.0.0.1:{engine.port}",
        "authorization": f"Bearer {ENGINE_KEY}",
        "content-type": "application/json",
        "x-request-id": "r-1",
        "content-length": str(len(received.body)),
    }
    assert KEY.encode() not in received.head + received.body


INTERNAL = """
Forwarded: for=1.2.3.4
X-Forwarded-For: 1.2.3.4
X-Forwarded-Host: engine
X-Real-IP: 1.2.3.4
X-Client-IP: 1.2.3.4
X-Original-URL: /v1/load_lora_adapter
X-Rewrite-URL: /v1/load_lora_adapter
X-HTTP-Method-Override: DELETE
X-Envoy-Original-Path: /
X-VSR-Selected-Model: x
X-vLLM-Model: x
X-Gateway-Destination-Endpoint: 10.0.0.1
X-Data-Parallel-Host-Port: 10.0.0.1:1
X-Prefiller-Host-Port: 10.0.0.1:1
X-Encoder-Hosts-Ports: 10.0.0.1:1
HTTP2-Settings: x
Proxy-Connection: keep-alive
"""


async def test_what_proxies_and_other_routers_say_to_each_other_is_not_a_clients_to_say(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    internal = INTERNAL.lstrip().replace("\n", "\r\n").encode()
    await router.ask(post(CHAT, headers=internal + b"Traceparent: 00-a-b-01\r\nX-Request-Id: r\r\n"))
    found = (await engine.request()).headers
    assert set(found) == {"host", "authorization", "content-type", "content-length", "traceparent", "x-request-id"}


@pytest.mark.parametrize(
    "value", [b"close, Authorization", b"Content-Length", b"Host, X-A", b"keep-alive,, Content-Type"]
)
async def test_connection_names_nothing_that_the_router_itself_sends(lab: Lab, value: bytes):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT, headers=b"Connection: " + value + b"\r\nX-A: b\r\n"))
    assert (await raw.answer()).status == 200
    found = (await engine.request()).headers
    assert found["authorization"] == f"Bearer {ENGINE_KEY}"
    assert found["content-length"] == str(len((await engine.request()).body))
    assert ("x-a" in found) is (b"X-A" not in value)


async def test_a_stream_arrives_byte_for_byte(lab: Lab):
    pieces = [b"\xc3", b"\xa9 da", b"ta: x\r\n\r\n: ping\n\n", b"\x00\xff", b"data: [DONE]"]

    async def script(received: Received) -> None:
        await received.send(STREAM)
        for piece in pieces:
            await received.send(chunk(piece))
        await received.send(b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n")

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM, headers=b"Connection: close\r\n"))
    got = await raw.rest()
    assert (
        got.partition(b"\r\n\r\n")[2] == b"".join(map(chunk, pieces)) + b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: t\r\n\r\n"
    )


async def test_a_head_and_a_body_may_come_byte_by_byte_on_both_sides(lab: Lab):
    response = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + whole(completion())

    async def script(received: Received) -> None:
        for n in range(len(response)):
            await received.send(response[n : n + 1])
            await asyncio.sleep(0)

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    request = post(CHAT)
    for n in range(len(request)):
        await raw.send(request[n : n + 1])
        await asyncio.sleep(0)
    found = await raw.answer()
    assert (found.status, found.body) == (200, completion())
    assert "link" not in found.headers


async def test_connections_are_kept_on_both_sides(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    for body in (CHAT, CHAT_STREAM, CHAT):
        await raw.send(post(body))
        assert (await raw.answer()).status == 200
    assert (engine.connections, len(engine.received)) == (1, 3)


@pytest.mark.parametrize("connection", [b"close", b"Close"])
async def test_a_client_that_asks_for_the_end_gets_it(lab: Lab, connection: bytes):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(post(CHAT, headers=b"Connection: %b\r\n" % connection))
    assert b"\r\nconnection: close\r\n" in await raw.rest()


async def test_an_engine_that_closes_does_not_close_the_client(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(whole(completion(), OK + b"Connection: close\r\n"))
        received.writer.close()

    engine = await lab.engine(script)
    router = await lab.router(engine)
    raw = await router.connect()
    for _ in range(2):
        await raw.send(post(CHAT))
        found = await raw.answer()
        assert "connection" not in found.headers
    assert engine.connections == 2


async def test_headers_of_the_engine_travel_but_for_those_of_its_connection(lab: Lab):
    head = (
        OK + b"Retry-After: 7\r\nContent-Encoding: gzip\r\nX-Request-Id: r\r\nKeep-Alive: timeout=5\r\n"
        b"X-LargeForge-Expert: forged\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
    )

    async def script(received: Received) -> None:
        await received.send(whole(b"\x1f\x8b", head))

    router = await lab.router(await lab.engine(script))
    assert (await router.ask(post(CHAT))).headers == {
        "content-type": "application/json",
        "retry-after": "7",
        "content-encoding": "gzip",
        "x-request-id": "r",
        "content-length": "2",
        "x-largeforge-expert": "general",
        "x-largeforge-reason": "fallback",
        "x-largeforge-score": "0.00",
    }


@pytest.mark.parametrize("status", [400, 422, 429, 500, 503])
async def test_errors_of_the_engine_are_the_clients(lab: Lab, status: int):
    body = b'{"error":{"message":"engine says no","type":"x","param":null,"code":1}}'

    async def script(received: Received) -> None:
        await received.send(whole(body, b"HTTP/1.1 %d Sorry\r\n" % status))

    router = await lab.router(await lab.engine(script))
    found = await router.ask(post(CHAT))
    assert (found.status, found.body) == (status, body)


async def test_an_answer_that_ends_with_the_connection_ends_so_for_the_client(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(OK + b"\r\nall of it")
        received.writer.close()

    router = await lab.router(await lab.engine(script))
    raw = await router.connect()
    await raw.send(post(CHAT))
    got = await raw.rest()
    assert got.endswith(b"connection: close\r\n\r\nall of it")


async def test_a_client_of_http_1_0_gets_no_chunks(lab: Lab):
    router = await lab.router(await lab.engine())
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = (await raw.rest()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == event("Hel") + event("lo") + b"data: [DONE]\n\n"


async def test_a_chunked_request_is_sent_on_with_its_length(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    request = post(b"", headers=b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    raw = await router.connect()
    await raw.send(request + chunk(CHAT[:7]) + b"5;a=b\r\n" + CHAT[7:12] + b"\r\n" + chunk(CHAT[12:]))
    await raw.send(b"0\r\nAuthorization: Bearer other\r\n\r\n")
    assert (await raw.answer()).status == 200
    received = await engine.request()
    assert received.body == CHAT.replace(b"auto", b"smol")
    assert received.headers["content-length"] == str(len(received.body))
    assert "transfer-encoding" not in received.headers
    assert received.headers["authorization"] == f"Bearer {ENGINE_KEY}"


async def test_fifty_streams_do_not_mix(lab: Lab):
    async def script(received: Received) -> None:
        text = json.loads(received.body)["messages"][0]["content"]
        await received.send(STREAM)
        for n in range(20):
            await received.send(chunk(event(f"{text}-{n} ")))
            await asyncio.sleep(0)
        await received.send(LAST)

    router = await lab.router(await lab.engine(script), await lab.engine(script))

    async def ask(number: int) -> None:
        stream = await api.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": f"c{number}"}], stream=True
        )
        return "".join([part.choices[0].delta.content async for part in stream])

    async with client(router) as api:
        answers = await asyncio.gather(*(ask(number) for number in range(50)))
    assert answers == ["".join(f"c{number}-{n} " for n in range(20)) for number in range(50)]


async def test_route_explains_without_an_engine(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    body = b'{"model":"auto","messages":[{"role":"user","content":"POEMS and a Sonnet"}]}'
    found = json.loads((await router.ask(post(body, path=b"/v1/route"))).body)
    silent = {"keywords": 0.0, "learnt": 0.0, "earlier": 0.0, "stickiness": 0.0, "priority": 0.0}
    assert found == {
        "object": "largeforge.route",
        "expert": "poetry",
        "reason": "keyword",
        "score": 0.75,
        "runner_up": None,
        "embedding": "not needed: no expert has learnt from examples",
        "fallback": "general",
        "scores": [
            {
                "expert": "poetry",
                "score": 0.75,
                "total": 0.75,
                "threshold": 0.5,
                "parts": silent | {"keywords": 0.75},
            },
            {"expert": "general", "score": 0.0, "total": 0.0, "threshold": 0.5, "parts": silent},
        ],
        "ignored": [],
    }
    assert engine.received == []


@pytest.mark.parametrize(
    ("request_", "status", "code", "allow"),
    [
        (get(b"/v1/load_lora_adapter"), 404, "unknown_url", None),
        (post(CHAT, path=b"/v1/rerank"), 404, "unknown_url", None),
        (get(b"/page/"), 404, "unknown_url", None),
        (post(CHAT, path=b"/"), 405, "method_not_allowed", "GET"),
        (get(b"//v1/models"), 404, "unknown_url", None),
        (get(b"/v1/../v1/models"), 404, "unknown_url", None),
        (get(b"/v1/%6dodels"), 404, "unknown_url", None),
        (get(b"/v1/models/"), 404, "model_not_found", None),
        (get(b"/v1/models/%2e%2e"), 404, "model_not_found", None),
        (get(b"/V1/models"), 404, "unknown_url", None),
        (post(CHAT, path=b"//v1/chat/completions"), 404, "unknown_url", None),
        (post(CHAT, path=b"/v1/chat/completions/"), 404, "unknown_url", None),
        (post(CHAT, path=b"/v1/chat/completions/../../tokenize"), 404, "unknown_url", None),
        (post(CHAT, path=b"/v1/chat/completions;x"), 404, "unknown_url", None),
        (post(CHAT, path=b"/tokenize"), 404, "unknown_url", None),
        (post(CHAT, path=b"/invocations"), 404, "unknown_url", None),
        (post(CHAT, path=b"/pause"), 404, "unknown_url", None),
        (get(b"/v1/models/../models"), 404, "model_not_found", None),
        (get(b"/v1/chat/completions"), 405, "method_not_allowed", "POST"),
        (post(CHAT, path=b"/v1/models"), 405, "method_not_allowed", "GET"),
    ],
)
async def test_nothing_else_is_reached(lab: Lab, request_: dict[str, Any], status: int, code: str, allow: str | None):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    for _ in range(2):  # the connection stays usable
        await raw.send(request_)
        found = await raw.answer()
        assert (found.status, json.loads(found.body)["error"]["code"]) == (status, code)
        assert found.headers.get("allow") == allow
    assert engine.received == []
