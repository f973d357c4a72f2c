"""What each engine says it has under way, asked for every few seconds beside the requests.

This router knows its own requests; those of other routers, and the operator's, only the engine knows. Where an engine
does not say it, or has not for a while, this router's own figures decide.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import aiohttp

from largeforge.router.pool import Peer, Pool

MOST_AT_A_TIME = 16
MOST_SECONDS = 2.0
MOST_BYTES = 4 * 1024 * 1024
"""vLLM's metrics have about 100 KB."""
STALE_AFTER = 3
"""Rounds without a word."""

_LOAD = re.compile(rb"\nvllm:num_requests_(?:running|waiting)(?:\{[^\n]*\})? ([^\s]+)")


class LoadError(Exception):
    """The engine does not say what it has under way."""


def under_way(metrics: bytes) -> int:
    """Requests that run or wait, of all the engine's processes, in Prometheus' text."""
    found = _LOAD.findall(b"\n" + metrics)
    if not found:
        raise LoadError("no vllm:num_requests_running in /metrics")
    try:
        return max(0, round(sum(map(float, found))))
    except (ValueError, OverflowError) as error:
        raise LoadError("no number in /metrics") from error


class Loads:
    """Keeps `foreign` and `fresh` of every pod."""

    def __init__(self, pool: Pool, *, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._every_seconds = every_seconds
        self._clock = clock
        self._heard: dict[Peer, float] = {}
        self._room = asyncio.Semaphore(MOST_AT_A_TIME)

    async def run(self) -> None:
        """Ask every engine in rounds, for ever."""
        timeout = aiohttp.ClientTimeout(total=min(MOST_SECONDS, self._every_seconds))
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            while True:
                await self.round(session)
                await asyncio.sleep(self._every_seconds)

    async def round(self, session: aiohttp.ClientSession) -> None:
        """Ask every engine once."""
        peers = [peer for peer in self._pool.peers if not peer.pod.external]
        await asyncio.gather(*(self._ask(session, peer) for peer in peers))
        oldest = self._clock() - STALE_AFTER * self._every_seconds
        self._heard = {peer: self._heard[peer] for peer in peers if self._heard.get(peer, oldest) > oldest}
        for peer in peers:
            peer.fresh = peer in self._heard

    async def _ask(self, session: aiohttp.ClientSession, peer: Peer) -> None:
        async with self._room:
            try:
                async with session.get(f"{peer.url}/metrics", allow_redirects=False) as response:
                    if response.status != 200:
                        return
                    found = under_way(await _read(response.content))
            except (aiohttp.ClientError, OSError, LoadError):
                return  # TimeoutError is an OSError; that it says nothing is what `fresh` is for
        peer.foreign = max(0, found - peer.in_flight)
        self._heard[peer] = self._clock()


async def _read(content: aiohttp.StreamReader) -> bytes:
    found = bytearray()
    async for piece in content.iter_any():
        found += piece
        if len(found) > MOST_BYTES:
            raise LoadError("/metrics is too long")
    return bytes(found)
