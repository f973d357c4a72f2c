"""A conversation through the router: the answer as it comes, and who gave it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import typer

from largeforge.cli.router import Router
from largeforge.cli.session import CliError

DONE = "[DONE]"
PROMPT = "> "
Message = dict[str, str]


@dataclass(slots=True)
class Conversation:
    """What was said so far, and for whom it is."""

    model: str
    max_tokens: int | None
    messages: list[Message] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """The request for the next answer."""
        limit = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return {"model": self.model, "messages": self.messages, "stream": True, **limit}


async def ask(router: Router, conversation: Conversation, question: str) -> None:
    """Print who answers *question* on stderr and the answer on stdout, and keep both in *conversation*."""
    conversation.messages.append({"role": "user", "content": question})
    parts: list[str] = []
    async with router.post("/v1/chat/completions", conversation.body()) as response:
        who, why, score = (response.headers.get(f"x-largeforge-{n}", "?") for n in ("expert", "reason", "score"))
        typer.secho(f"{who} ({why}, {score})", err=True, dim=True)
        async for text in pieces(response.content):
            parts.append(text)
            sys.stdout.write(text)
            sys.stdout.flush()
    sys.stdout.write("\n")
    conversation.messages.append({"role": "assistant", "content": "".join(parts)})


async def pieces(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    """The text of a stream of server-sent events; a `CliError` where it ends before it is whole."""
    whole = False
    async for line in _lines(content):
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == DONE:
            whole = True
            continue
        text = _text(data)
        if text:
            yield text
    if not whole:
        raise CliError("the answer broke off before its end; ask again")


def _text(data: str) -> str:
    try:
        event = json.loads(data)
    except ValueError as exc:
        raise CliError("the router's stream has an event that is no JSON; is --router a LargeForge router?") from exc
    if "error" in event:
        error = event["error"]
        raise CliError(f"the engine broke off: {error['message'] if isinstance(error, dict) else error}; ask again")
    choices = event.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[str]:
    # Not by aiohttp's own lines, which have a limit: an event may hold a long piece.
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")


async def converse(router: Router, conversation: Conversation) -> None:
    """Ask each line of stdin, with what was said before, until it ends."""
    terminal = sys.stdin.isatty()
    while True:
        if terminal:
            sys.stderr.write(PROMPT)
            sys.stderr.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        if line.strip():
            await ask(router, conversation, line.strip())
