"""What is asked of the API server, told to whoever counts it: our own client's requests and kopf's alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp

NONRESOURCE = "nonresource"
"""What stands for the resource where a path names none: discovery, and the server's own documents."""
NO_ANSWER = "none"
"""What stands for the status where no answer came."""
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, in the words of roles: no name of an object is among them."""

    verb: str
    """`get`, `list`, `watch`, `create`, `patch`, `update` or `delete`."""
    resource: str
    """As a role names it, `finetunejobs` or `finetunejobs/status`."""
    scope: str
    """The path without an object's name: what one watch is told from another by."""


Observe = Callable[[Call, str, float], None]
"""Takes a request, its status (or `NO_ANSWER`), and the seconds until the head of its answer was there."""


def call_of(method: str, path: str, query: Mapping[str, str]) -> Call:
    """What a role would call the request."""
    parts = [part for part in path.split("/") if part]
    start = {"api": 2, "apis": 3}.get(parts[0] if parts else "", len(parts))
    tail = parts[start:]
    if tail[:1] == ["namespaces"] and len(tail) > 2:
        tail = tail[2:]
    named = len(tail) > 1
    if method == "GET":
        verb = "watch" if query.get("watch") == "true" else "get" if named or not tail else "list"
    else:
        verb = _VERBS.get(method, method.lower())
    resource = "/".join((tail[0], *tail[2:3])) if tail else NONRESOURCE
    return Call(verb, resource, path.rsplit("/", 1)[0] if named else path)


def tracing(observe: Observe) -> aiohttp.TraceConfig:
    """What lets a session of aiohttp tell *observe* of each of its requests."""
    config = aiohttp.TraceConfig()

    async def started(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
        context.since = asyncio.get_running_loop().time()

    def told(context: SimpleNamespace, params: Any, code: str) -> None:
        call = call_of(params.method, params.url.path, params.url.query)
        observe(call, code, asyncio.get_running_loop().time() - context.since)

    async def ended(_: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        told(context, params, str(params.response.status))

    async def failed(
        _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        told(context, params, NO_ANSWER)

    config.on_request_start.append(started)
    config.on_request_end.append(ended)
    config.on_request_exception.append(failed)
    return config
