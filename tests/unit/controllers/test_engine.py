from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from largeforge.api.probes import PROBES
from largeforge.controllers import enginehttp
from largeforge.controllers.engine import Answers, Call, Said, Tokens, Trouble, list_models, perform
from largeforge.controllers.enginehttp import HttpEngines, connect_session
from largeforge.controllers.enginepods import engine_pods
from largeforge.jobs.probing import prompt_digest
from tests.unit.serving import FakeEngines, pod_manifest, second_pod

KEY = "0123456789abcdef" * 4
HOST = "127.0.0.1"


def error(message, status):
    return web.json_response({"error": {"message": message, "type": "X", "code": status}}, status=status)


class Vllm:
    """A server that answers as it is told, and notes what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, request):
        body = await request.json() if request.can_read_body else None
        self.asked.append((request.method, request.path, body, request.headers.get("Authorization")))
        answer = self.answers.pop(0)
        return await answer(request) if callable(answer) else answer


@asynccontextmanager
async def engines_of(handler):
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    async with connect_session() as session:
        yield HttpEngines(session, port=runner.addresses[0][1])
    await runner.cleanup()


def chat(**message):
    return web.json_response({"choices": [{"message": message}]})


async def test_models_are_listed_with_the_key():
    vllm = Vllm(web.json_response({"data": [{"id": "smol"}, {"id": "sql-aaaaaaaa"}]}))
    async with engines_of(vllm) as engines:
        assert await engines.models(HOST, key=KEY) == {"smol", "sql-aaaaaaaa"}
    assert vllm.asked == [("GET", "/v1/models", None, f"Bearer {KEY}")]


async def test_an_adapter_is_loaded_by_name_and_path():
    vllm = Vllm(web.Response(text="Success: LoRA adapter 'sql-aaaaaaaa' added successfully."))
    async with engines_of(vllm) as engines:
        assert await engines.load(HOST, key=KEY, name="sql-aaaaaaaa", path="/mnt/adapters/x") is None
    method, path, body, _ = vllm.asked[0]
    assert (method, path) == ("POST", "/v1/load_lora_adapter")
    assert body == {"lora_name": "sql-aaaaaaaa", "lora_path": "/mnt/adapters/x"}


async def test_an_adapter_that_is_there_already_is_loaded():
    vllm = Vllm(error("The lora adapter 'sql-aaaaaaaa' has already been loaded. If you want to …", 400))
    async with engines_of(vllm) as engines:
        assert await engines.load(HOST, key=KEY, name="sql-aaaaaaaa", path="/p") is None


async def test_an_adapter_that_is_gone_already_is_unloaded():
    vllm = Vllm(web.Response(text="Success"), error("The lora adapter 'x' cannot be found.", 404))
    async with engines_of(vllm) as engines:
        assert await engines.unload(HOST, key=KEY, name="x-aaaaaaaa") is None
        assert await engines.unload(HOST, key=KEY, name="x-aaaaaaaa") is None
    assert vllm.asked[0][1:3] == ("/v1/unload_lora_adapter", {"lora_name": "x-aaaaaaaa"})


async def test_a_refusal_is_told_in_the_engines_words_redacted_and_on_one_line():
    vllm = Vllm(error("LoRA rank 64 is greater\nthan max_lora_rank 16, token=hf_abcdefghijklmnop", 500))
    async with engines_of(vllm) as engines:
        trouble = await engines.load(HOST, key=KEY, name="x-aaaaaaaa", path="/p")
    assert trouble == Trouble("LoRA rank 64 is greater than max_lora_rank 16, token=*** (500)")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (web.json_response({"detail": "Not Found"}, status=404), "Not Found (404)"),
        (web.Response(text="<html>oops</html>", status=502), "<html>oops</html> (502)"),
        (web.json_response({"error": "Unauthorized"}, status=401), "does not take LargeForge's key (401)"),
        (web.Response(status=302, headers={"Location": "http://elsewhere.example/"}), "(302)"),
        (web.json_response([1], status=500), "[1] (500)"),
    ],
)
async def test_every_shape_of_an_error_has_words(answer, words):
    async with engines_of(Vllm(answer)) as engines:
        trouble = await engines.load(HOST, key=KEY, name="x-aaaaaaaa", path="/p")
    assert words in trouble.message


async def test_words_are_bounded():
    async with engines_of(Vllm(error("x" * 100_000, 500))) as engines:
        trouble = await engines.load(HOST, key=KEY, name="x-aaaaaaaa", path="/p")
    assert len(trouble.message) == 1024


@pytest.mark.parametrize("body", ["{", "[]", '{"data": [{}]}', '{"data": 3}'])
async def test_a_list_that_is_none_is_trouble(body):
    async with engines_of(Vllm(web.Response(text=body))) as engines:
        assert await engines.models(HOST, key=KEY) == Trouble("the engine's list of models is not one")


async def test_an_answer_without_end_is_trouble(monkeypatch):
    monkeypatch.setattr(enginehttp, "BODY_LIMIT", 1000)
    async with engines_of(Vllm(web.Response(text="x" * 2000))) as engines:
        trouble = await engines.models(HOST, key=KEY)
    assert "more than 1000 bytes" in trouble.message


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (chat(content="Hi"), None),
        (chat(content=None, reasoning_content="Hm"), None),
        (chat(content=""), Trouble("the engine answered a generation without a token")),
        (web.json_response({"choices": []}), Trouble("the engine's answer to a generation is not one")),
        (web.Response(text="?"), Trouble("the engine's answer to a generation is not one")),
    ],
)
async def test_a_probe_is_a_generation_with_a_token(answer, trouble):
    vllm = Vllm(answer)
    async with engines_of(vllm) as engines:
        assert await engines.probe(HOST, key=KEY, model="smol") == trouble
    body = vllm.asked[0][2]
    assert (vllm.asked[0][1], body["model"], body["max_tokens"]) == ("/v1/chat/completions", "smol", 8)
    assert "prompt_logprobs" not in json.dumps(body)


async def test_a_model_without_a_chat_template_completes_instead():
    vllm = Vllm(
        error("As of transformers v4.44, default chat template is no longer allowed, so you must provide one", 400),
        web.json_response({"choices": [{"text": " world"}]}),
    )
    async with engines_of(vllm) as engines:
        assert await engines.probe(HOST, key=KEY, model="smol") is None
    assert vllm.asked[1][1] == "/v1/completions"


async def test_a_slow_engine_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(enginehttp, "LIST_SECONDS", 0.05)
    waiting = asyncio.Event()

    async def hang(_):
        await waiting.wait()
        return web.Response()

    async with engines_of(Vllm(hang)) as engines:
        trouble = await engines.models(HOST, key=KEY)
        waiting.set()
    assert trouble == Trouble("no answer to /v1/models within 0 s")


async def test_an_engine_that_is_not_there_is_said():
    async with connect_session() as session:
        trouble = await HttpEngines(session, port=1).models(HOST, key=KEY)
    assert trouble.message.startswith("the engine cannot be reached:")
    assert KEY not in trouble.message


async def test_an_engine_that_breaks_off_is_said():
    async def cut(request):
        request.transport.abort()
        return web.Response()

    async with engines_of(Vllm(cut)) as engines:
        trouble = await engines.load(HOST, key=KEY, name="x-aaaaaaaa", path="/p")
    assert "broke off" in trouble.message


async def test_only_ready_pods_are_asked_and_each_call_is_made_once():
    pods = engine_pods([pod_manifest(), second_pod(ready=False)])
    fake = FakeEngines()
    assert await list_models(pods, fake, key=KEY) == {"uid-of-smol-engine-1": frozenset({"smol"})}
    call = Call("probe", pods[0], "smol")
    assert await perform([call, call], fake, key=KEY) == {call: None}
    assert fake.calls == [("probe", "10.0.0.1", "smol")]


async def test_pods_are_asked_at_the_same_time():
    pods = engine_pods([pod_manifest(), second_pod()])
    both = asyncio.Barrier(2)

    class Slow(FakeEngines):
        async def probe(self, address, *, key, model):
            await both.wait()
            return await super().probe(address, key=key, model=model)

    async with asyncio.timeout(5):
        results = await perform([Call("probe", pod, "smol") for pod in pods], Slow(), key=KEY)
    assert list(results.values()) == [None, None]


def first_token(**logprobs):
    top = [{"token": f"token_id:{token[1:]}", "logprob": value} for token, value in logprobs.items()]
    return web.json_response({"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": top}]}}]})


async def test_the_first_tokens_of_each_fixed_conversation_are_asked_for():
    vllm = Vllm(*(first_token(t7=-0.25, t9=-1.5) for _ in PROBES))
    async with engines_of(vllm) as engines:
        found = await engines.answers(HOST, key=KEY, model="sql-aaaaaaaa")
    assert found == Answers({name: {7: -0.25, 9: -1.5} for name in PROBES})
    for _, path, body, _ in vllm.asked:
        wanted = ("sql-aaaaaaaa", 1, 0, 20)
        assert (path, body["model"], body["max_tokens"], body["temperature"], body["top_logprobs"]) == (
            "/v1/chat/completions",
            *wanted,
        )
        assert "prompt_logprobs" not in body  # they end an engine that has adapters
    assert [body["messages"] for _, _, body, _ in vllm.asked] == list(PROBES.values())


async def test_without_a_chat_template_the_first_tokens_are_those_of_a_completion():
    async def answer(request):
        if request.path == "/v1/chat/completions":
            return error("you must provide a chat template", 400)
        return web.json_response({"choices": [{"text": "x", "logprobs": {"top_logprobs": [{"token_id:7": -0.5}]}}]})

    async with engines_of(answer) as engines:
        assert await engines.answers(HOST, key=KEY, model="smol") == Answers({name: {7: -0.5} for name in PROBES})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (error("LoRA is not loaded", 500), "LoRA is not loaded (500)"),
        (
            web.json_response({"choices": [{"message": {}, "logprobs": None}]}),
            "the engine's log-probabilities are none",
        ),
        (web.json_response({"choices": []}), "the engine's log-probabilities are none"),
        (web.Response(text="?"), "the engine's answer to a generation is not one"),
    ],
)
async def test_first_tokens_that_are_not_told_are_trouble(answer, words):
    async def handler(_):
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")

    async with engines_of(handler) as engines:
        assert await engines.answers(HOST, key=KEY, model="smol") == Trouble(words)


async def test_the_engines_tokens_are_digested_as_the_trainer_does():
    ids = [1, 70_000, 3]
    vllm = Vllm(*(web.json_response({"tokens": ids}) for _ in PROBES))
    async with engines_of(vllm) as engines:
        found = await engines.tokens(HOST, key=KEY, model="smol")
    assert found == Tokens(dict.fromkeys(PROBES, prompt_digest(ids)))
    assert vllm.asked[0][1:3] == (
        "/tokenize",
        {"model": "smol", "messages": PROBES["greeting"], "add_generation_prompt": True},
    )


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (error("no chat template is defined", 400), Tokens()),
        (error("Not Found", 404), Trouble("Not Found (404)")),
        (web.json_response({"tokens": [-1]}), Trouble("the engine's answer to /tokenize is not one")),
        (web.json_response({}), Trouble("the engine's answer to /tokenize is not one")),
    ],
)
async def test_tokens_that_are_not_told(answer, found):
    async def handler(_):
        return web.Response(status=answer.status, body=answer.body, content_type="application/json")

    async with engines_of(handler) as engines:
        assert await engines.tokens(HOST, key=KEY, model="smol") == found


async def test_a_question_is_answered_in_text():
    vllm = Vllm(chat(reasoning_content="Hm. ", content="Paris"))
    async with engines_of(vllm) as engines:
        assert await engines.ask(HOST, key=KEY, model="smol", prompt="Where?") == Said("Hm. Paris")
    body = vllm.asked[0][2]
    assert (body["messages"], body["max_tokens"]) == ([{"role": "user", "content": "Where?"}], 64)


async def test_each_verb_is_made_and_answered():
    pod = engine_pods([pod_manifest()])[0]
    calls = [
        Call("answers", pod, "sql-aaaaaaaa"),
        Call("tokens", pod, "smol"),
        Call("ask", pod, "smol", prompt="Where?"),
        Call("unload", pod, "sql-aaaaaaaa"),
    ]
    results = await perform(calls, FakeEngines(), key=KEY)
    assert [type(results[call]).__name__ for call in calls] == ["Answers", "Tokens", "Said", "NoneType"]
