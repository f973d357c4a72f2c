from __future__ import annotations

import json

import pytest
from aiohttp import web
from yarl import URL

from largeforge.controllers import enginemeasure
from largeforge.controllers.engine import Measured, Trouble
from tests.unit.controllers.test_engine import HOST, KEY, engines_of


def stream_of(*events, status=200):
    async def handler(request):
        handler.asked = await request.json()
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for event in events:
            await response.write(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode())
        return response

    return handler


def token(text):
    return {"choices": [{"text": text}]}


async def test_first_token_and_speed_are_measured():
    ticks = iter([10.0, 10.25, 11.25])
    handler = stream_of(token("a"), token("b"), {"choices": [], "usage": {"completion_tokens": 33}}, "[DONE]")
    async with engines_of(handler) as engines:
        url = URL.build(scheme="http", host=HOST, port=engines._port, path="/v1/completions")
        answer = await enginemeasure.measure(engines._session, url, key=KEY, model="smol", clock=lambda: next(ticks))
    assert answer == Measured(ttft_ms=250, tokens_per_second=32.0)
    assert (handler.asked["model"], handler.asked["stream"], handler.asked["ignore_eos"]) == ("smol", True, True)


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (stream_of("[DONE]"), "brought no stream of tokens"),
        (stream_of(token("a"), {"choices": [], "usage": {"completion_tokens": 1}}), "brought no stream of tokens"),
        (stream_of(status=503), "was answered 503"),
        (stream_of("{not json"), "broke off: JSONDecodeError"),
    ],
)
async def test_what_cannot_be_timed_is_trouble(handler, words):
    async with engines_of(handler) as engines:
        answer = await engines.measure(HOST, key=KEY, model="smol")
    assert isinstance(answer, Trouble)
    assert words in answer.message
