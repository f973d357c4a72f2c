"""The engines' own API: what we ask of one vLLM pod, and calls to many of them as data.

Trouble is data too, in the engine's own words: a reconcile goes on with what the other pods said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import aiohttp
from yarl import URL

from largeforge.api.redact import redact
from largeforge.controllers.enginepods import EnginePod
from largeforge.resources.serving import ENGINE_PORT

CONNECT_SECONDS = 3.0
LIST_SECONDS = 5.0
LOAD_SECONDS = 40.0
"""An adapter of a gigabyte from slow storage; with listing and probe it stays below the queue's deadline (120 s)."""
PROBE_SECONDS = 30.0
"""Eight tokens take a second on a CPU; an engine under load may let them wait."""
BODY_LIMIT = 1 << 20
"""Bytes that we read of an answer: a list of a thousand adapters has 300 KiB."""
PROBE_TOKENS = 8
PROBE_MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an engine did not do what it was asked, redacted and bounded."""

    message: str


@dataclass(frozen=True, slots=True)
class Call:
    """One thing to ask of one pod."""

    verb: Literal["load", "probe", "unload"]
    pod: EnginePod
    model: str
    path: str = ""
    """Where the adapter lies in the pod (load)."""


Results = Mapping[Call, Trouble | None]
"""What came of the calls; None is success."""
Listing = frozenset[str] | Trouble
"""The model names that an engine knows."""


class Engines(Protocol):
    """The verbs of an engine, found by its pod's address."""

    async def models(self, address: str, *, key: str) -> Listing:
        """The names that it serves: the base and the adapters."""
        ...

    async def load(self, address: str, *, key: str, name: str, path: str) -> Trouble | None:
        """Load the adapter in the folder *path* as *name*; one that is there is success, since names carry digests."""
        ...

    async def unload(self, address: str, *, key: str, name: str) -> Trouble | None:
        """Forget the adapter *name*; one that is not there is success."""
        ...

    async def probe(self, address: str, *, key: str, model: str) -> Trouble | None:
        """Let *model* generate a few tokens; success is that there were some."""
        ...


async def list_models(pods: Iterable[EnginePod], engines: Engines, *, key: str) -> dict[str, Listing]:
    """What the ready ones of *pods* serve, by the pod's uid, asked all at once."""
    ready = [pod for pod in pods if pod.ready]
    answers = await asyncio.gather(*(engines.models(pod.address, key=key) for pod in ready))
    return {pod.uid: answer for pod, answer in zip(ready, answers, strict=True)}


async def perform(calls: Iterable[Call], engines: Engines, *, key: str) -> dict[Call, Trouble | None]:
    """Make *calls*, all at once, so that a slow pod delays its own object alone."""
    wanted = list(dict.fromkeys(calls))
    answers = await asyncio.gather(*(_make(call, engines, key) for call in wanted))
    return dict(zip(wanted, answers, strict=True))


async def _make(call: Call, engines: Engines, key: str) -> Trouble | None:
    match call.verb:
        case "load":
            return await engines.load(call.pod.address, key=key, name=call.model, path=call.path)
        case "unload":
            return await engines.unload(call.pod.address, key=key, name=call.model)
        case "probe":
            return await engines.probe(call.pod.address, key=key, model=call.model)


@asynccontextmanager
async def connect_engines() -> AsyncIterator[HttpEngines]:
    """`Engines` over HTTP, for the life of the operator. No proxies, no cookies, and redirects are never followed."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=8)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    ) as session:
        yield HttpEngines(session)


class HttpEngines:
    """`Engines` over HTTP; made by `connect_engines`."""

    def __init__(self, session: aiohttp.ClientSession, *, port: int = ENGINE_PORT) -> None:
        self._session = session
        self._port = port

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
        # min_tokens: a tuned model may have nothing to say to a greeting, and that is no fault of its engine.
        limits = {"model": model, "max_tokens": PROBE_TOKENS, "min_tokens": 1, "temperature": 0}
        chat = limits | {"messages": PROBE_MESSAGES}
        answer = await self._ask(address, key, Request("POST", "/v1/chat/completions", PROBE_SECONDS, chat))
        if isinstance(answer, Answer) and answer.status == 400 and "chat template" in answer.words():
            plain = limits | {"prompt": PROBE_MESSAGES[0]["content"]}
            answer = await self._ask(address, key, Request("POST", "/v1/completions", PROBE_SECONDS, plain))
        if isinstance(answer, Trouble):
            return answer
        if answer.status != 200:
            return answer.trouble()
        try:
            generated = _generated(answer.json())
        except (ValueError, KeyError, TypeError, IndexError):
            return Trouble("the engine's answer to a generation is not one")
        return None if generated else Trouble("the engine answered a generation without a token")

    async def _ask(self, address: str, key: str, request: Request) -> Answer | Trouble:
        url = URL.build(scheme="http", host=address, port=self._port, path=request.path)
        headers = {"Authorization": f"Bearer {key}"}
        try:
            async with (
                asyncio.timeout(request.seconds),
                self._session.request(
                    request.method, url, json=request.body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return Answer(response.status, await _bounded(response))
        except TimeoutError:
            return Trouble(f"no answer to {request.path} within {request.seconds:.0f} s")
        except aiohttp.ClientConnectorError as exc:
            return Trouble(redact(f"the engine cannot be reached: {exc.os_error.strerror or 'connection failed'}"))
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Trouble(redact(f"the engine broke off: {type(exc).__name__} {exc}"))


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


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > BODY_LIMIT:
            raise ValueError(f"an answer of more than {BODY_LIMIT} bytes")
    return bytes(body)


def _generated(answer: Any) -> bool:
    """Whether a chat or a plain completion holds text, thoughts included."""
    choice = answer["choices"][0]
    said = choice.get("message", choice)
    return any(said.get(part) for part in ("content", "text", "reasoning", "reasoning_content"))
