"""Whether External experts answer: the router asks each for a short generation, once a minute and when it changes.

An engine is proven by the operator, on each pod. What lies outside only the router may reach, so it asks itself; the
operator reads the outcome from the report.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import aiohttp
import msgspec

from largeforge.api.redact import redact
from largeforge.api.routerreport import ProbeReport
from largeforge.router.external import External

EVERY_SECONDS = 60.0
MOST_SECONDS = 30.0
"""For one generation, from the connection to its last byte. A server that scales from nothing may need longer; it is
asked again."""
MOST_AT_A_TIME = 4
MOST_BYTES = 1 << 20
MOST_WORDS = 300
"""Characters of a server's own error that are told."""
QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "stream": False}
TOKENS = 8
_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the bound on an answer: the second is for models that refuse the first."""

Ask = Callable[[External], Awaitable[str | None]]
"""Ask once; returns why that did not come to an answer, with the remedy."""


class _Choice(msgspec.Struct):
    message: dict[str, Any]


class _Answer(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]


_answer = msgspec.json.Decoder(_Answer)


class Probes:
    """Asks the External experts of the table, each in a task of its own."""

    def __init__(
        self,
        ask: Ask,
        *,
        every_seconds: float = EVERY_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ask = ask
        self._every_seconds = every_seconds
        self._now = now
        self._room = asyncio.Semaphore(MOST_AT_A_TIME)
        self._tasks: dict[External, asyncio.Task[None]] = {}
        self._found: dict[External, ProbeReport] = {}
        self._refused: dict[str, ProbeReport] = {}
        self._by_name: Mapping[str, External] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when an expert begins to answer, or ceases to."""

    def use(self, externals: Mapping[str, External], refused: Mapping[str, str]) -> None:
        """Ask *externals*, by name, from now on, and no others; *refused* may not be asked, for the reasons given."""
        self._by_name = dict(externals)
        wanted = set(externals.values())
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
            self._found.pop(gone, None)
        for new in wanted - self._tasks.keys():
            self._tasks[new] = asyncio.create_task(self._follow(new))
        before, now = self._refused, self._now()
        self._refused = {
            name: before[name] if name in before and before[name].message == why else _report(why, now)
            for name, why in refused.items()
        }

    def problem(self, external: External) -> str | None:
        """Why a request must not go there; None where the last generation came."""
        found = self._found.get(external)
        if found is None:
            return f"{external.origin} has not been asked yet whether it answers; try again"
        return None if found.ok else found.message

    def report(self, name: str, generation: int) -> ProbeReport | None:
        """What that generation of an Expert answered; None while it is asked for the first time."""
        if name in self._refused:
            return self._refused[name]
        external = self._by_name.get(name)
        return self._found.get(external) if external is not None and external.generation == generation else None

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, external: External) -> None:
        while True:
            async with self._room:
                problem = await self._ask(external)
            before = self._found.get(external)
            self._found[external] = _report(problem, self._now())
            if before is None or (before.ok, before.message) != (problem is None, problem or ""):
                self.changed()
            await asyncio.sleep(self._every_seconds)


def _report(problem: str | None, now: datetime) -> ProbeReport:
    return ProbeReport(ok=problem is None, message=problem or "", time=now)


@asynccontextmanager
async def asking(context: ssl.SSLContext, *, most_seconds: float = MOST_SECONDS) -> AsyncIterator[Ask]:
    """What asks over HTTP: no proxies, no cookies, no redirects, and certificates as *context* has it."""
    timeout = aiohttp.ClientTimeout(total=most_seconds)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        trust_env=False,
    ) as session:

        async def ask(external: External) -> str | None:
            try:
                return await _ask(session, external)
            except TimeoutError:
                return f"{external.origin} did not answer within {most_seconds:g} s; see whether it is overloaded"
            except aiohttp.ClientConnectorCertificateError as error:
                return _untrusted(external, error.certificate_error)
            except (aiohttp.ClientError, OSError) as error:
                return (
                    f"{external.origin} cannot be reached: {_words(str(error) or type(error).__name__, external)};"
                    " check spec.endpoint.url, and whether the router's network policy lets it through"
                )

        yield ask


async def _ask(session: aiohttp.ClientSession, external: External) -> str | None:
    problem: str | None = None
    for limit in _LIMITS:
        body = msgspec.json.encode({"model": external.model, **QUESTION, limit: TOKENS})
        status, text = await _post(session, external, body)
        if status == 200:
            return _unlike_openai(external, text)
        problem = _refusal(external, status, text)
        if status != 400 or _LIMITS[-1].encode() not in text:
            break
    return problem


async def _post(session: aiohttp.ClientSession, external: External, body: bytes) -> tuple[int, bytes]:
    headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
    if external.key:
        headers["authorization"] = f"Bearer {external.key}"
    url = f"{external.url}/v1/chat/completions"
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        found = bytearray()
        async for piece in response.content.iter_any():
            found += piece
            if len(found) > MOST_BYTES:
                return 0, b""
        return response.status, bytes(found)


def _unlike_openai(external: External, text: bytes) -> str | None:
    try:
        _answer.decode(text)
    except msgspec.DecodeError:
        return (
            f"{external.origin} did not answer as OpenAI's API does (no choices[0].message); spec.endpoint.url must be"
            " the address before /v1"
        )
    return None


def _refusal(external: External, status: int, text: bytes) -> str:
    if status == 0:
        return f"{external.origin} answered more than {MOST_BYTES} bytes to a question for {TOKENS} tokens"
    if 300 <= status < 400:
        return f"{external.origin} answered with a redirect ({status}), which is not followed; name where it leads to"
    remedy = {
        401: f"put its key into entry '{external.name}' of the Secret that the chart's router.externalKeysSecret names",
        403: f"give the key in entry '{external.name}' of that Secret the right to ask, or put in another",
        404: "check spec.endpoint.url (the address before /v1) and spec.endpoint.model",
    }.get(status, "see what it says")
    words = _words(text.decode(errors="replace"), external)
    said = f": {words}" if words else ""
    return f"{external.origin} answered {status} when model '{external.model}' was asked{said}; {remedy}"


def _untrusted(external: External, error: Exception) -> str:
    return (
        f"the certificate of {external.origin} is not trusted: {_words(str(error), external)}; put the certificate of"
        " its authority into the ConfigMap that the chart's router.externalCaConfigMap names"
    )


def _words(text: str, external: External) -> str:
    """A server's or a library's own words, on one line, without the key."""
    if external.key:
        text = text.replace(external.key, "***")
    return redact(text, limit=MOST_WORDS)
