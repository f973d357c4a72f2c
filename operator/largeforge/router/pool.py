"""The engines' pods as this router sees them: requests under way, and connections kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from largeforge.router.http1 import keep_alive
from largeforge.router.table import Pod
from largeforge.router.upstream import DechunkedUpstream, Upstream

IDLE_SECONDS = 4.0
"""vLLM's server closes an idle connection after 5 s; a request must not be on its way then."""
MAX_IDLE = 128
"""Idle connections that are kept for one pod."""


class Peer:
    """One pod."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.in_flight = 0
        self.host_line = f"host: {_bracketed(pod.host)}:{pod.port}\r\n".encode()
        self._loop = asyncio.get_running_loop()
        self._idle: list[Upstream] = []
        self._retired = False

    def take(self) -> Upstream | None:
        """The connection that was used last, if one is fresh enough."""
        oldest = self._loop.time() - IDLE_SECONDS
        while self._idle:
            upstream = self._idle.pop()
            if upstream.idle_since >= oldest and not upstream.transport.is_closing():
                return upstream
            upstream.transport.close()
        return None

    async def connect(self, *, seconds: float, dechunked: bool = False) -> Upstream:
        """A new connection; `OSError` or `TimeoutError` where there is none."""
        upstream = (DechunkedUpstream if dechunked else Upstream)(self._give, self._forget)
        try:
            async with asyncio.timeout(seconds):
                await self._loop.create_connection(lambda: upstream, self.pod.host, self.pod.port)
        except BaseException:
            upstream.abandon()  # a cancellation may come just when the connection is made
            raise
        keep_alive(upstream.transport)
        return upstream

    def retire(self) -> None:
        """Close what is idle, and keep no connection from now on."""
        self._retired = True
        for upstream in self._idle:
            upstream.transport.close()
        self._idle.clear()

    @property
    def idle(self) -> int:
        """How many connections lie idle."""
        return len(self._idle)

    def _give(self, upstream: Upstream) -> None:
        if self._retired or len(self._idle) >= MAX_IDLE:
            upstream.transport.close()
            return
        upstream.idle_since = self._loop.time()
        self._idle.append(upstream)

    def _forget(self, upstream: Upstream) -> None:
        if upstream in self._idle:
            self._idle.remove(upstream)


class Pool:
    """All pods that the route table names."""

    def __init__(self) -> None:
        self._peers: dict[Pod, Peer] = {}
        self._turn = 0

    def choose(self, pods: Sequence[Pod], *, avoid: Peer | None = None) -> Peer | None:
        """The pod with the fewest requests under way, in turn where several have as few; never *avoid*."""
        self._turn += 1
        count = len(pods)
        chosen: Peer | None = None
        for offset in range(count):
            peer = self._peer(pods[(self._turn + offset) % count])
            if peer is not avoid and (chosen is None or peer.in_flight < chosen.in_flight):
                chosen = peer
        return chosen

    def retain(self, pods: Collection[Pod]) -> None:
        """Forget the pods that are not among *pods*; requests under way there go on."""
        for pod in self._peers.keys() - set(pods):
            self._peers.pop(pod).retire()

    def close(self) -> None:
        """Close every idle connection."""
        self.retain(())

    def _peer(self, pod: Pod) -> Peer:
        peer = self._peers.get(pod)
        if peer is None:
            peer = self._peers[pod] = Peer(pod)
        return peer


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
