"""The engines' own API: what we ask of one vLLM pod, and calls to many of them as data.

Trouble is data too, in the engine's own words: a reconcile goes on with what the other pods said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from largeforge.controllers.enginepods import EnginePod


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an engine did not do what it was asked, redacted and bounded."""

    message: str
    reason: str | None = None
    """What it comes to for the object, where that is known."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says first to each of the fixed conversations (`largeforge.api.probes`)."""

    likeliest: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """The likeliest first tokens with their log-probabilities, by the conversation's name."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The fixed conversations in the engine's own chat template."""

    digests: Mapping[str, str] = field(default_factory=dict)
    """The digest of the token ids, by the conversation's name; nothing where the engine has no chat template."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model answered to a question of the user's."""

    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What one request took."""

    ttft_ms: int
    """Until the first token."""
    tokens_per_second: float
    """After it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing to ask of one pod."""

    verb: Literal["load", "probe", "unload", "answers", "tokens", "ask", "measure"]
    pod: EnginePod
    model: str
    path: str = ""
    """Where the adapter lies in the pod (load)."""
    prompt: str = ""
    """What is asked (ask)."""
    turn: int = 1
    """The same is asked again, for what the engine's own noise is (answers)."""


Outcome = Trouble | Answers | Tokens | Said | Measured | None
Results = Mapping[Call, Outcome]
"""What came of the calls; None is success where nothing is answered."""


def trouble_of(results: Results, call: Call) -> Trouble | None:
    """What went wrong with *call*; None where nothing did, or where it was not made."""
    outcome = results.get(call)
    return outcome if isinstance(outcome, Trouble) else None


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

    async def answers(self, address: str, *, key: str, model: str) -> Answers | Trouble:
        """What *model* would say first to each of the fixed conversations. Nothing is asked of its prompts."""
        ...

    async def tokens(self, address: str, *, key: str, model: str) -> Tokens | Trouble:
        """The token ids that the engine makes of each of the fixed conversations, as digests."""
        ...

    async def ask(self, address: str, *, key: str, model: str, prompt: str) -> Said | Trouble:
        """The first tokens of *model*'s answer to *prompt*."""
        ...

    async def measure(self, address: str, *, key: str, model: str) -> Measured | Trouble:
        """How long *model* takes to its first token, and how fast the next ones come."""
        ...


async def list_models(pods: Iterable[EnginePod], engines: Engines, *, key: str) -> dict[str, Listing]:
    """What the ready ones of *pods* serve, by the pod's uid, asked all at once."""
    ready = [pod for pod in pods if pod.ready]
    answers = await asyncio.gather(*(engines.models(pod.address, key=key) for pod in ready))
    return {pod.uid: answer for pod, answer in zip(ready, answers, strict=True)}


async def perform(calls: Iterable[Call], engines: Engines, *, key: str) -> dict[Call, Outcome]:
    """Make *calls*, all at once, so that a slow pod delays its own object alone."""
    wanted = list(dict.fromkeys(calls))
    answers = await asyncio.gather(*(_make(call, engines, key) for call in wanted))
    return dict(zip(wanted, answers, strict=True))


async def _make(call: Call, engines: Engines, key: str) -> Outcome:
    address = call.pod.address
    match call.verb:
        case "load":
            return await engines.load(address, key=key, name=call.model, path=call.path)
        case "unload":
            return await engines.unload(address, key=key, name=call.model)
        case "ask":
            return await engines.ask(address, key=key, model=call.model, prompt=call.prompt)
    plain: Mapping[str, Callable[..., Awaitable[Outcome]]] = {
        "probe": engines.probe,
        "answers": engines.answers,
        "tokens": engines.tokens,
        "measure": engines.measure,
    }
    return await plain[call.verb](address, key=key, model=call.model)
