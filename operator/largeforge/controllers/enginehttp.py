"""`Engines` over HTTP: vLLM's own API, with bounded answers and bounded patience."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import aiohttp
from yarl import URL

from largeforge.api.names import Reason
from largeforge.api.probes import PROBES, Conversation
from largeforge.api.redact import redact
from largeforge.controllers.engine import Answers, Listing, Measured, Said, Tokens, Trouble
from largeforge.controllers.enginemeasure import measure
from largeforge.resources.engineflags import ENGINE_PORT

CONNECT_SECONDS = 3.0
LIST_SECONDS = 5.0
LOAD_SECONDS = 40.0
"""An adapter of a gigabyte from slow storage; with listing and probe it stays below the queue's deadline (120 s)."""
PROBE_SECONDS = 30.0
"""Eight tokens take a second on a CPU; an engine under load may let them wait."""
BODY_LIMIT = 1 << 20
"""Bytes that we read of an answer: a list of a thousand adapters has 300 KiB."""
PROBE_TOKENS = 8
PROBE_MESSAGES: Conversation = [{"role": "user", "content": "Hello"}]
ASK_TOKENS = 64
LIKELIEST = 20
"""As many as vLLM gives unless told otherwise, and as OpenAI's API allows."""
TOKEN_PREFIX = "token_id:"  # noqa: S105 - how vLLM writes a token's id


@asynccontextmanager
async def connect_session() -> AsyncIterator[aiohttp.ClientSession]:
    """The session for engines and routers, for the life of the operator: no proxies, no cookies."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=8)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield session


class HttpEngines:
    """`Engines` over HTTP; redirects are never followed. What *guard* raises keeps a request back."""

    def __init__(
        self, session: aiohttp.ClientSession, *, port: int = ENGINE_PORT, guard: Callable[[], None] | None = None
    ) -> None:
        self._session = session
        self._port = port
        self._guard = guard

    async def models(self, address: str, *, key: str) -> Listing:
        """As in `Engines`."""
        answer = await self._ask(address, key, Request("GET", "/v1/models", LIST_SECONDS))
        if isinstance(answer, Trouble):
            return answer
        if answer.status != 200:
            return answer.trouble()
        try:
            return frozenset(str(model["id"]) for model in answer.json()["data"])
        except (ValueError, KeyError, TypeError):
            return Trouble("the engine's list of models is not one")

    async def load(self, address: str, *, key: str, name: str, path: str) -> Trouble | None:
        """As in `Engines`."""
        body = {"lora_name": name, "lora_path": path}
        answer = await self._ask(address, key, Request("POST", "/v1/load_lora_adapter", LOAD_SECONDS, body))
        if isinstance(answer, Trouble):
            return answer
        if answer.status == 200 or (answer.status == 400 and "already been loaded" in answer.words()):
            return None
        if "No adapter found" in answer.words():
            return replace(answer.trouble(), reason=Reason.ARTIFACT_NOT_FOUND)
        return answer.trouble()

    async def unload(self, address: str, *, key: str, name: str) -> Trouble | None:
        """As in `Engines`."""
        body = {"lora_name": name}
        answer = await self._ask(address, key, Request("POST", "/v1/unload_lora_adapter", LIST_SECONDS, body))
        if isinstance(answer, Trouble):
            return answer
        return None if answer.status in (200, 404) else answer.trouble()

    async def probe(self, address: str, *, key: str, model: str) -> Trouble | None:
        """As in `Engines`; a model without a chat template is asked to complete instead."""
        answer = await self._complete(address, key, Question(PROBE_MESSAGES, _limits(model, PROBE_TOKENS)))
        if isinstance(answer, Trouble):
            return answer
        try:
            generated = any(_texts(answer))
        except (KeyError, TypeError, IndexError):
            return Trouble("the engine's answer to a generation is not one")
        return None if generated else Trouble("the engine answered a generation without a token")

    async def answers(self, address: str, *, key: str, model: str) -> Answers | Trouble:
        """As in `Engines`; without a chat template the last message is completed."""
        found = await asyncio.gather(*(self._first_tokens(address, key, model, each) for each in PROBES.values()))
        likeliest = {}
        for name, answer in zip(PROBES, found, strict=True):
            if isinstance(answer, Trouble):
                return answer
            likeliest[name] = answer
        return Answers(likeliest)

    async def tokens(self, address: str, *, key: str, model: str) -> Tokens | Trouble:
        """As in `Engines`."""
        bodies = [{"model": model, "messages": each, "add_generation_prompt": True} for each in PROBES.values()]
        requests = [Request("POST", "/tokenize", PROBE_SECONDS, body) for body in bodies]
        answers = await asyncio.gather(*(self._ask(address, key, request) for request in requests))
        digests = {}
        for name, answer in zip(PROBES, answers, strict=True):
            if isinstance(answer, Trouble):
                return answer
            if answer.status == 400 and "chat template" in answer.words():
                return Tokens()
            if answer.status != 200:
                return answer.trouble()
            try:
                digests[name] = _digest(answer.json()["tokens"])
            except (ValueError, KeyError, TypeError, struct.error):
                return Trouble("the engine's answer to /tokenize is not one")
        return Tokens(digests)

    async def ask(self, address: str, *, key: str, model: str, prompt: str) -> Said | Trouble:
        """As in `Engines`."""
        question = Question([{"role": "user", "content": prompt}], _limits(model, ASK_TOKENS))
        answer = await self._complete(address, key, question)
        if isinstance(answer, Trouble):
            return answer
        try:
            return Said("".join(_texts(answer)))
        except (KeyError, TypeError, IndexError):
            return Trouble("the engine's answer to a generation is not one")

    async def measure(self, address: str, *, key: str, model: str) -> Measured | Trouble:
        """As in `Engines`."""
        url = URL.build(scheme="http", host=address, port=self._port, path="/v1/completions")
        return await measure(self._session, url, key=key, model=model)

    async def _first_tokens(
        self, address: str, key: str, model: str, conversation: Conversation
    ) -> Mapping[int, float] | Trouble:
        # Only of what is generated: the log-probabilities of a prompt end an engine that has adapters.
        wanted = {"model": model, "max_tokens": 1, "temperature": 0, "return_tokens_as_token_ids": True}
        chat = {"logprobs": True, "top_logprobs": LIKELIEST}
        answer = await self._complete(address, key, Question(conversation, wanted, chat, {"logprobs": LIKELIEST}))
        if isinstance(answer, Trouble):
            return answer
        try:
            return _likeliest(answer)
        except (ValueError, KeyError, TypeError, IndexError):
            return Trouble("the engine's log-probabilities are none")

    async def _complete(self, address: str, key: str, question: Question) -> Any:
        """The answer to a chat, else, of a model without a chat template, to its last message; or the trouble."""
        body = {**question.wanted, **question.of_chat, "messages": question.messages}
        answer = await self._ask(address, key, Request("POST", "/v1/chat/completions", PROBE_SECONDS, body))
        if isinstance(answer, Answer) and answer.status == 400 and "chat template" in answer.words():
            body = {**question.wanted, **question.of_plain, "prompt": question.messages[-1]["content"]}
            answer = await self._ask(address, key, Request("POST", "/v1/completions", PROBE_SECONDS, body))
        if isinstance(answer, Trouble):
            return answer
        if answer.status != 200:
            return answer.trouble()
        try:
            return answer.json()
        except ValueError:
            return Trouble("the engine's answer to a generation is not one")

    async def _ask(self, address: str, key: str, request: Request) -> Answer | Trouble:
        url = URL.build(scheme="http", host=address, port=self._port, path=request.path)
        headers = {"Authorization": f"Bearer {key}"}
        if self._guard is not None:
            self._guard()
        try:
            async with (
                asyncio.timeout(request.seconds),
                self._session.request(
                    request.method, url, json=request.body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return Answer(response.status, await bounded(response, BODY_LIMIT))
        except TimeoutError:
            return Trouble(f"no answer to {request.path} within {request.seconds:.0f} s")
        except aiohttp.ClientConnectorError as exc:
            return Trouble(redact(f"the engine cannot be reached: {exc.os_error.strerror or 'connection failed'}"))
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Trouble(redact(f"the engine broke off: {type(exc).__name__} {exc}"))


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation to be answered."""

    messages: Conversation
    wanted: Mapping[str, Any]
    of_chat: Mapping[str, Any] = field(default_factory=dict)
    """What is wanted beside where it is asked as a chat."""
    of_plain: Mapping[str, Any] = field(default_factory=dict)
    """What is wanted beside where its last message is completed."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask of an engine, and how long to wait for the whole answer."""

    method: Literal["GET", "POST"]
    path: str
    seconds: float
    body: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body, parsed; a `ValueError` where it is not JSON."""
        return json.loads(self.body)

    def words(self) -> str:
        """The message of an error, out of the shapes that vLLM and FastAPI give it."""
        try:
            said = self.json()
        except ValueError:
            return self.body.decode(errors="replace")
        if isinstance(said, dict):
            said = said.get("error", said)
        if isinstance(said, dict):
            said = said.get("message") or said.get("detail") or said
        return said if isinstance(said, str) else json.dumps(said)

    def trouble(self) -> Trouble:
        """The answer as what went wrong."""
        if self.status == 401:
            return Trouble("the engine does not take LargeForge's key (401): its pod is older than the key")
        return Trouble(redact(f"{self.words()} ({self.status})"))


async def bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body; a `ValueError` where it is longer than *limit*."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
    return bytes(body)


def _limits(model: str, tokens: int) -> dict[str, Any]:
    # min_tokens: a tuned model may have nothing to say to a greeting, and that is no fault of its engine.
    return {"model": model, "max_tokens": tokens, "min_tokens": 1, "temperature": 0}


def _texts(answer: Any) -> list[str]:
    """The text of a chat or a plain completion, thoughts included."""
    choice = answer["choices"][0]
    said = choice.get("message", choice)
    return [said[part] for part in ("reasoning", "reasoning_content", "content", "text") if said.get(part)]


def _likeliest(answer: Any) -> dict[int, float]:
    """The first token's likeliest ids, in either form of a completion."""
    found = answer["choices"][0]["logprobs"]
    if "content" in found:
        pairs = [(each["token"], each["logprob"]) for each in found["content"][0]["top_logprobs"]]
    else:
        pairs = list(found["top_logprobs"][0].items())
    return {int(token.removeprefix(TOKEN_PREFIX)): float(logprob) for token, logprob in pairs}


def _digest(ids: list[int]) -> str:
    """As the trainer's record has it: SHA-256 over the ids, each four bytes, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
