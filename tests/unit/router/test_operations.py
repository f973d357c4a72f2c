from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from largeforge.router import breaker
from tests.unit.router.lab import EXPERTS, Lab, Received, chat, completion, post, table_of, until, whole

PREVIOUS = {"model": "auto", "input": "and now?", "previous_response_id": "resp_1"}


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/embeddings"])
async def test_each_path_of_openai_reaches_the_engines_own(lab: Lab, path: bytes):
    engine = await lab.engine()
    router = await lab.router(engine)
    assert (await router.ask(post(body(model="poetry", input="hi"), path=path))).status == 200
    assert engine.received[0].head.startswith(b"POST " + path + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("path", "members", "why"),
    [
        (b"/v1/embeddings", {"model": "auto", "input": "hi"}, "cannot be compared"),
        (b"/v1/responses", PREVIOUS, "previous response"),
    ],
)
async def test_what_auto_cannot_decide_needs_a_name(lab: Lab, path: bytes, members: dict[str, Any], why: str):
    engine = await lab.engine()
    router = await lab.router(engine)
    found = await router.ask(post(body(**members), path=path))
    error = json.loads(found.body)["error"]
    assert (found.status, error["code"], error["param"]) == (400, "model_required", "model")
    assert why in error["message"]
    assert (await router.ask(post(body(**members | {"model": "poetry"}), path=path))).status == 200
    assert len(engine.received) == 1


@pytest.mark.parametrize(
    ("path", "members", "expert"),
    [
        (b"/v1/responses", {"input": "a sonnet"}, "poetry"),
        (b"/v1/responses", {"input": "a sonnet", "previous_response_id": None}, "poetry"),
        (b"/v1/responses", {"input": [{"role": "user", "content": "a sonnet"}]}, "poetry"),
        (
            b"/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a sonnet"}]}, {"type": "x"}]},
            "poetry",
        ),
        (b"/v1/responses", {"input": [{"role": "assistant", "content": "a sonnet"}]}, "general"),
        (b"/v1/completions", {"prompt": "a sonnet"}, "poetry"),
        (b"/v1/completions", {"prompt": [1, 2, 3]}, "general"),
    ],
)
async def test_auto_reads_the_text_of_each_path(lab: Lab, path: bytes, members: dict[str, Any], expert: str):
    router = await lab.router(await lab.engine())
    found = await router.ask(post(body(model="auto", **members), path=path))
    assert found.headers["x-largeforge-expert"] == expert


def missing(text: bytes, *, head: bytes = b""):
    async def script(received: Received) -> None:
        await received.send(whole(text, b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\n" + head))

    return script


RESPONSE_MISSING = (
    b'{"error":{"message":"Response with id \'r\' not found.","type":"invalid_request_error","code":404}}'
)


@pytest.mark.parametrize("text", [RESPONSE_MISSING, b'{"detail":"Not Found"}', b""])
async def test_an_engines_404_that_is_not_about_the_model_is_the_clients(lab: Lab, text: bytes):
    engines = [await lab.engine(missing(text, head=b"x-request-id: 7\r\n")) for _ in range(2)]
    router = await lab.router(*engines)
    raw = await router.connect()
    for count in (1, 2):
        await raw.send(post(chat("hi")))
        found = await raw.answer()
        assert (found.status, found.body, found.headers["x-request-id"]) == (404, text, "7")
        assert sum(len(engine.received) for engine in engines) == count
    assert sum(engine.connections for engine in engines) == 1
    assert router.outcomes() == {("general", "fallback", "404"): 2}


async def test_a_404_that_comes_in_pieces_is_read_whole(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 33\r\n\r\n")
        for piece in (b'{"error":{"type"', b':"NotFou', b'ndError"}'):
            await received.send(piece)

    router = await lab.router(await lab.engine(script))
    found = await router.ask(post(chat("hi")))
    assert (found.status, json.loads(found.body)["error"]["code"]) == (503, "engine_unavailable")


async def test_a_404_without_an_end_is_not_kept(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 9000000\r\n\r\n")
        await received.send(b"x" * 200_000)
        await received.gone()

    router = await lab.router(await lab.engine(script))
    assert (await router.ask(post(chat("hi")))).status == 502


async def test_a_404_that_breaks_off_is_an_error(lab: Lab):
    async def script(received: Received) -> None:
        await received.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 90\r\n\r\n{")
        received.writer.close()

    router = await lab.router(await lab.engine(script))
    assert (await router.ask(post(chat("hi")))).status == 502


async def test_a_name_is_looked_up_again_before_the_second_attempt(lab: Lab):
    """The engine has unloaded the old version while the request was on its way; the table knows the new one."""

    def version(name: str):
        return EXPERTS.replace(
            "  metadata: {name: general}",
            "  metadata: {name: general}\n"
            f"  status: {{placement: {{engineName: {name}, desired: 2, loaded: 2, summary: 2/2}}}}",
        )

    async def script(received: Received) -> None:
        if json.loads(received.body)["model"] == "new":
            await received.send(whole(completion()))
            return
        router.dispatcher.replace_table(table_of(*ports, experts=version("new")))
        await missing(b'{"error":{"type":"NotFoundError"}}')(received)

    engines = [await lab.engine(script) for _ in range(2)]
    ports = [engine.port for engine in engines]
    router = await lab.router(*engines)
    router.dispatcher.replace_table(table_of(*ports, experts=version("old")))
    assert (await router.ask(post(chat("hi")))).status == 200
    assert sorted(len(engine.received) for engine in engines) == [1, 1]


async def test_a_pod_that_keeps_failing_gets_no_more_requests_for_a_while(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(breaker, "FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(breaker, "LAST_PAUSE_SECONDS", 600.0)

    async def fails(received: Received) -> None:
        await received.send(whole(b"{}", b"HTTP/1.1 500 Internal Server Error\r\n"))

    bad, good = await lab.engine(fails), await lab.engine()
    router = await lab.router(bad, good)
    statuses = [(await router.ask(post(chat(f"hi {n}")))).status for n in range(40)]
    assert len(bad.received) == statuses.count(500) == 3
    assert len(good.received) == 37


async def test_one_failing_pod_alone_is_still_asked(lab: Lab):
    async def fails(received: Received) -> None:
        await received.send(whole(b"{}", b"HTTP/1.1 500 Internal Server Error\r\n"))

    bad = await lab.engine(fails)
    router = await lab.router(bad)
    for _ in range(10):
        assert (await router.ask(post(chat("hi")))).status == 500
    assert len(bad.received) == 10


async def test_the_turns_of_a_conversation_go_to_one_pod(lab: Lab):
    engines = [await lab.engine() for _ in range(4)]
    router = await lab.router(*engines)
    first = {"role": "user", "content": "hi"}
    turns = [
        [first, *({"role": "assistant", "content": "hello"}, {"role": "user", "content": "go on"}) * n]
        for n in range(6)
    ]
    for messages in turns:
        assert (await router.ask(post(chat("", messages=messages)))).status == 200
    assert sorted(len(engine.received) for engine in engines) == [0, 0, 0, 6]


async def test_a_hundred_tables_under_load_lose_no_request(lab: Lab):
    engines = [await lab.engine() for _ in range(2)]
    router = await lab.router(*engines)
    first, second = (engine.port for engine in engines)
    tables = [table_of(*ports) for ports in ((first,), (first, second), (second,))]
    done = asyncio.Event()
    statuses = []

    async def asks(number: int) -> None:
        raw = await router.connect()
        while not done.is_set():
            await raw.send(post(chat(f"hi {number}", stream=number % 2 == 0)))
            statuses.append((await raw.answer()).status)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(asks(number))
        for n in range(100):
            router.dispatcher.replace_table(tables[n % 3])
            seen = len(statuses)
            await until(lambda: len(statuses) > seen + 2)  # noqa: B023 - it ends in this round
        done.set()
    assert set(statuses) == {200}
