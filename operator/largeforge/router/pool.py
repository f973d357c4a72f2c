"""The engines' pods as this router sees them: requests under way, and connections kept alive."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping

from largeforge.router.breaker import Breaker
from largeforge.router.choose import pick
from largeforge.router.endpoints import Pod
from largeforge.router.external import host_of
from largeforge.router.http1 import keep_alive
from largeforge.router.table import Route
from largeforge.router.upstream import DechunkedUpstream, Upstream

IDLE_SECONDS = 4.0
"""vLLM's server closes an idle connection after 5 s; a request must not be on its way then."""
SHUTDOWN_SECONDS = 2.0
"""How long a server outside has for its farewell in TLS, before the socket is closed."""
MAX_IDLE = 128
"""Idle connections that are kept for one pod."""


class Peer:
    """One pod."""

    def __init__(self, pod: Pod, tls: ssl.SSLContext | None) -> None:
        self.pod = pod
        if pod.tls and tls is None:
            raise AssertionError("nobody's certificate is trusted")
        self._tls = tls if pod.tls else None
        self.in_flight = 0
        self.foreign = 0
        """What the engine has under way for others than this router, as it said itself."""
        self.fresh = False
        """Whether it said so lately."""
        self.breaker = Breaker()
        self.number = int.from_bytes(hashlib.sha256(f"{pod.host}|{pod.port}".encode()).digest()[:8], "big")
        where = host_of(pod)
        self.url = f"http://{where}"
        """Of a pod of the cluster."""
        self.host_line = f"host: {where}\r\n".encode()
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
                await self._loop.create_connection(
                    lambda: upstream,
                    self.pod.host,
                    self.pod.port,
                    ssl=self._tls,
                    server_hostname=self.pod.host if self._tls else None,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS if self._tls else None,
                )
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
    """All pods that the route table names, and which of them a route has."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._peers: dict[Pod, Peer] = {}
        self._of_route: dict[str, tuple[Peer, ...]] = {}
        self._turn = 0
        self.now: Callable[[], float] = asyncio.get_running_loop().time
        """The loop's time. To ask for the running loop is a system call, so a request does not."""

    def choose(self, route: str, *, key: int | None = None, avoid: Peer | None = None) -> Peer | None:
        """The pod for a request of the conversation *key* to *route*, as the table of now has it; never *avoid*."""
        self._turn += 1
        peers = self._of_route.get(route, ())
        return pick(peers, turn=self._turn, now=self.now(), key=key, avoid=avoid)

    def has_choice(self, route: str) -> bool:
        """Whether *route* has several pods, so that it matters to which of them a conversation goes."""
        return len(self._of_route.get(route, ())) > 1

    def use(self, routes: Mapping[str, Route]) -> None:
        """Know the pods of *routes*, and forget all others; requests under way there go on."""
        self._retain(pod for route in routes.values() for pod in route.pods)
        self._of_route = {name: tuple(map(self._peer, route.pods)) for name, route in routes.items()}

    def close(self) -> None:
        """Close every idle connection."""
        self._of_route = {}
        self._retain(())

    @property
    def peers(self) -> Collection[Peer]:
        """Every pod of now."""
        return self._peers.values()

    def _retain(self, pods: Iterable[Pod]) -> None:
        for pod in self._peers.keys() - set(pods):
            self._peers.pop(pod).retire()

    def _peer(self, pod: Pod) -> Peer:
        peer = self._peers.get(pod)
        if peer is None:
            peer = self._peers[pod] = Peer(pod, self._tls)
        return peer
