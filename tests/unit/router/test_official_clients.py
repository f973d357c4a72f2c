"""OpenAI's own clients for Python and Node work unchanged: the address and the key are all that they are told."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from dev import nodejs
from tests.unit.router.lab import KEY, STREAM, Lab, Received, Router, chunk, event, until, whole
from tests.unit.router.scripted import CALL, USAGE, engine

SAID = [{"role": "user", "content": "grüße aus Köln 東京 😀 end"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
PARALLEL = 100
NODE_SECONDS = 30


def client(router: Router, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(**({"base_url": router.url, "api_key": KEY, "max_retries": 0, "timeout": 10} | options))


async def test_what_is_asked_reaches_the_engine_as_it_was_asked(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    wanted: dict[str, Any] = {"stop": ["\n", "END"], "seed": 7, "temperature": 0.125, "response_format": schema}
    async with client(router) as api:
        found = await api.chat.completions.create(model="auto", messages=SAID, **wanted)
    assert json.loads(found.choices[0].message.content) == wanted | {"model": "smol"}
    assert found.usage.total_tokens == 10


async def test_several_choices_and_their_logprobs(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        found = await api.chat.completions.create(model="auto", messages=SAID, n=3, logprobs=True)
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert found.choices[2].logprobs.content[0].logprob == -0.5


async def test_tool_calls(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        found = await api.chat.completions.create(model="auto", messages=SAID, tools=TOOLS)
    assert found.choices[0].finish_reason == "tool_calls"
    assert found.choices[0].message.tool_calls[0].function.arguments == CALL["function"]["arguments"]


async def test_streamed_tool_calls_come_together_again(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        stream = await api.chat.completions.create(model="auto", messages=SAID, tools=TOOLS, stream=True)
        calls = [part.choices[0].delta.tool_calls async for part in stream]
    assert "".join(call[0].function.arguments for call in calls if call) == CALL["function"]["arguments"]


async def test_a_stream_with_usage_at_its_end(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        stream = await api.chat.completions.create(
            model="auto", messages=SAID, stream=True, stream_options={"include_usage": True}
        )
        parts = [part async for part in stream]
    words = [part.choices[0].delta.content for part in parts if part.choices]
    assert words == ["", *SAID[0]["content"].split(" ")]
    assert parts[-1].usage.model_dump(exclude_unset=True) == USAGE


async def test_embeddings_of_a_named_model(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        found = await api.embeddings.create(model="smol", input="x", encoding_format="float")
        assert found.data[0].embedding == [0.5, -0.25]
        with pytest.raises(openai.BadRequestError) as caught:
            await api.embeddings.create(model="auto", input="x")
    assert caught.value.code == "model_required"


async def test_completions(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        assert (await api.completions.create(model="auto", prompt="abc")).choices[0].text == "ABC"


async def test_responses_whole_and_streamed(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router) as api:
        found = await api.responses.create(model="auto", input="say it", instructions="be brief")
        assert found.output_text == "be brief: say it"
        stream = await api.responses.create(model="auto", input="say it", instructions="be brief", stream=True)
        events = [event async for event in stream]
    assert [e.delta for e in events if e.type == "response.output_text.delta"] == ["be", "brief:", "say", "it"]
    assert events[-1].response.output_text == "be brief: say it"


async def refuse(received: Received) -> None:
    body = b'{"error":{"message":"too many","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}'
    await received.send(whole(body, b"HTTP/1.1 429 X\r\ncontent-type: application/json\r\nretry-after: 1\r\n"))


async def broken(received: Received) -> None:
    await received.send(STREAM + chunk(event("a")))
    received.reset()


async def test_each_refusal_is_the_clients_exception_for_it(lab: Lab):
    router = await lab.router(await lab.engine(engine))
    async with client(router, api_key="a-wrong-key-0123456789") as api:
        with pytest.raises(openai.AuthenticationError) as caught:
            await api.chat.completions.create(model="auto", messages=SAID)
        assert caught.value.code == "invalid_api_key"
    async with client(router) as api:
        with pytest.raises(openai.NotFoundError) as caught:
            await api.chat.completions.create(model="nobody", messages=SAID)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    async with client(await lab.router(await lab.engine(refuse))) as api:
        with pytest.raises(openai.RateLimitError) as caught:
            await api.chat.completions.create(model="auto", messages=SAID)
        assert caught.value.response.headers["retry-after"] == "1"
    gone = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    await gone.wait_closed()
    async with client(await lab.router(port)) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await api.chat.completions.create(model="auto", messages=SAID)
        assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")
        assert int(caught.value.response.headers["retry-after"]) > 0


async def test_the_client_tries_again_by_itself_where_the_router_says_so(lab: Lab):
    async def once(received: Received) -> None:
        await (refuse if upstream.connections == 1 and len(upstream.received) == 1 else engine)(received)

    upstream = await lab.engine(once)
    async with client(await lab.router(upstream), max_retries=2) as api:
        found = await api.with_options(timeout=30).chat.completions.create(model="auto", messages=SAID)
    assert found.choices[0].message.content
    assert len(upstream.received) == 2


async def test_a_timeout_of_the_client_ends_the_engines_work(lab: Lab):
    upstream = await lab.engine(Received.gone)
    async with client(await lab.router(upstream), timeout=0.2) as api:
        with pytest.raises(openai.APITimeoutError):
            await api.chat.completions.create(model="auto", messages=SAID)
        await until(lambda: upstream.received and not upstream.open)


async def test_a_stream_that_breaks_off_is_an_error_and_no_short_answer(lab: Lab):
    async with client(await lab.router(await lab.engine(broken))) as api:
        stream = await api.chat.completions.create(model="auto", messages=SAID, stream=True)
        assert (await anext(stream)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIConnectionError):
            await anext(stream)


async def test_a_hundred_streams_at_once_keep_apart(lab: Lab):
    router = await lab.router(await lab.engine(engine), await lab.engine(engine))

    async def one(api: openai.AsyncOpenAI, number: int) -> list[str]:
        said = [{"role": "user", "content": " ".join(f"{number}-{word}" for word in range(20))}]
        stream = await api.chat.completions.create(model="auto", messages=said, stream=True)
        return [part.choices[0].delta.content async for part in stream]

    async with client(router) as api:
        found = await asyncio.gather(*(one(api, number) for number in range(PARALLEL)))
    assert found == [["", *(f"{number}-{word}" for word in range(20))] for number in range(PARALLEL)]


@pytest.fixture(scope="session")
def installed() -> Path:
    return nodejs.ensure_client()


NODE = (Path(__file__).parent / "node" / "scenarios.mjs").read_text()
SCENARIOS = [line.split("(")[0].removeprefix("  async ") for line in NODE.splitlines() if line.startswith("  async ")]


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_client_for_node(lab: Lab, installed: Path, scenario: str):
    scripts = {"a429IsARateLimitError": refuse, "aStreamThatBreaksOffIsAnError": broken, "aTimeoutIsOne": Received.gone}
    router = await lab.router(await lab.engine(scripts.get(scenario, engine)))
    process = await asyncio.create_subprocess_exec(
        nodejs.node(installed),
        *("--input-type=module", "--eval", NODE, "--", router.url, KEY, scenario),
        cwd=installed,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), NODE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert output.decode().strip() == f"ok {scenario}"
