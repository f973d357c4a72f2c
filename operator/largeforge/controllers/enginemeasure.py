"""One measured request: how long the first token takes, and how fast the next ones come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from largeforge.api.redact import redact
from largeforge.controllers.engine import Measured, Trouble

MEASURE_SECONDS = 30.0
MEASURE_TOKENS = 32
LINE_LIMIT = 1 << 16
"""Bytes of one event: each has a token."""
BODY: dict[str, Any] = {
    "prompt": "Hello",
    "max_tokens": MEASURE_TOKENS,
    "ignore_eos": True,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
}


async def measure(
    session: aiohttp.ClientSession, url: URL, *, key: str, model: str, clock: Callable[[], float] = time.monotonic
) -> Measured | Trouble:
    """Ask *url* (`/v1/completions`) for a stream of a few tokens and time it."""
    headers = {"Authorization": f"Bearer {key}"}
    started = clock()
    try:
        async with (
            asyncio.timeout(MEASURE_SECONDS),
            session.post(
                url, json=BODY | {"model": model}, headers=headers, allow_redirects=False, max_line_size=LINE_LIMIT
            ) as response,
        ):
            if response.status != 200:
                return Trouble(f"the measured request was answered {response.status}")
            return await _timed(response, started, clock)
    except TimeoutError:
        return Trouble(f"the measured request took more than {MEASURE_SECONDS:.0f} s")
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return Trouble(redact(f"the measured request broke off: {type(exc).__name__} {exc}"))


async def _timed(response: aiohttp.ClientResponse, started: float, clock: Callable[[], float]) -> Measured | Trouble:
    first = last = None
    tokens = 0
    async for line in response.content:
        event = _event(line)
        if event is None:
            continue
        if event.get("choices"):
            last = clock()
            first = first if first is not None else last
        if event.get("usage"):
            tokens = int(event["usage"]["completion_tokens"])
    if first is None or last is None or tokens < 2 or last <= first:
        return Trouble("the measured request brought no stream of tokens")
    return Measured(ttft_ms=round((first - started) * 1000), tokens_per_second=(tokens - 1) / (last - first))


def _event(line: bytes) -> dict[str, Any] | None:
    """The JSON of one line of the stream, or None where it has none."""
    text = line.strip()
    if not text.startswith(b"data: {"):
        return None
    found = json.loads(text.removeprefix(b"data: "))
    return found if isinstance(found, dict) else None
