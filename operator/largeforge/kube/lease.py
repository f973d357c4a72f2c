"""Which of several replicas acts: a Lease of coordination.k8s.io, held as client-go's controllers hold theirs.

`kubernetes.aio.leaderelection` is not used: it never gives a lease up, measures by the wall clock, which may step, and
cannot be asked whether the lease still holds, which a process that was stopped for a minute has to know before it
writes. kopf's peering needs a CRD and is no election.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from largeforge.kube.cluster import LEASES, ClusterError, Conflict, Manifest
from largeforge.kube.transport import Missing, Request, path

log = logging.getLogger(__name__)

LEASE_SECONDS = 15.0
"""How long a holder that is silent keeps the others waiting."""
HOLD_SHARE = 2 / 3
"""Of the lease's time: for so long after it asked for its last renewal, the holder acts. The rest is for what is still
under way to the API server."""
RENEW_SHARE = 2 / 15
"""Of the lease's time: between two renewals."""
LOOK_SHARE = 1 / 30
"""Of the lease's time: between two looks of the others. What they add to a takeover is this at most."""
BLIND_SHARE = 1 / 3
"""Of the lease's time: who could read nothing for so long counts the holder's silence anew. When the API server comes
back, whoever held the lease renews it, and nothing changes hands."""

Call = Callable[[Request], Awaitable[Manifest]]


class LeaseName(NamedTuple):
    """Which Lease."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """For messages."""
        return f"lease {self.namespace}/{self.name}"


class NotLeading(ClusterError):  # noqa: N818 - what the replica is, as in its log
    """This replica may not write now."""

    reason = "NotLeading"


class Leadership(Protocol):
    """The right to act."""

    async def acquire(self, following: Callable[[], None]) -> None:
        """Return when this replica may act; *following* is called where another one does."""
        ...

    async def keep(self) -> None:
        """Hold it, for ever; `NotLeading` once another replica has it."""
        ...

    async def release(self) -> None:
        """Give it up, so that another one need not wait."""
        ...

    def check(self) -> None:
        """Raise `NotLeading` where this replica may not write at this moment."""
        ...


class Alone:
    """`Leadership` of a process that has no others beside it."""

    async def acquire(self, following: Callable[[], None]) -> None:
        """At once."""

    async def keep(self) -> None:
        """Always."""
        await asyncio.Event().wait()

    async def release(self) -> None:
        """There is nobody to take it."""

    def check(self) -> None:
        """It may."""


def since_boot() -> float:
    """Seconds that no step of the clock changes and that go on while the machine sleeps, where the system has them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """`Leadership` by a Lease. *identity* is a name that no other living process has: a pod's.

    A container that starts again in the same pod has its forerunner's name, and so takes the lease back at once.
    """

    def __init__(
        self,
        call: Call,
        name: LeaseName,
        *,
        identity: str,
        seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] = since_boot,
    ) -> None:
        self._call = call
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")
        self._written: Manifest | None = None
        self._watched, self._since, self._looked = "", 0.0, float("-inf")
        self._said = ""

    @property
    def held(self) -> bool:
        """Whether the lease is ours at this moment, by our own clock."""
        return self._clock() < self._until

    def check(self) -> None:
        """As in `Leadership`."""
        if not self.held:
            raise NotLeading(f"{self._identity} does not hold {self._name}")

    async def acquire(self, following: Callable[[], None]) -> None:
        """As in `Leadership`."""
        while True:
            if await self._attempt(lambda: self._look(following)):
                break
            await asyncio.sleep(self._seconds * LOOK_SHARE)
        self._say(f"{self._identity} leads: it holds {self._name}")

    async def keep(self) -> None:
        """As in `Leadership`.

        A lease that ran out and that nobody took is renewed as if nothing had been: its resourceVersion says that
        nobody else acted meanwhile.
        """
        while True:
            await asyncio.sleep(self._seconds * RENEW_SHARE)
            await self._attempt(self._renew)

    async def release(self) -> None:
        """As in `Leadership`."""
        if self._until == float("-inf"):
            return
        self._until = float("-inf")
        try:
            async with asyncio.timeout(self._seconds * RENEW_SHARE):
                mine = self._written or await self._read()
                if mine is not None and holder(mine) == self._identity:
                    await self._write(mine, holder=None)
                    log.info("%s has given up %s", self._identity, self._name)
        except (ClusterError, TimeoutError) as exc:
            log.warning("the lease was not given up, the next replica waits until it has run out: %r", exc)

    async def _attempt(self, act: Callable[[], Awaitable[None]]) -> bool:
        """Whether the lease is ours after *act*; what the API server does not answer is tried again."""
        try:
            async with asyncio.timeout(self._seconds * BLIND_SHARE):
                await act()
        except NotLeading:
            raise
        except Conflict:
            self._written = None  # another was first, or we were and did not hear of it: the next look tells
        except (ClusterError, TimeoutError) as exc:
            self._written = None
            self._say(f"{self._name}: {type(exc).__name__}: {exc}", level=logging.WARNING)
        return self.held

    async def _look(self, following: Callable[[], None]) -> None:
        found = await self._read()
        now = self._clock()
        if found is None:
            await self._write(None, holder=self._identity)
        elif self._free(found, now):
            await self._write(found, holder=self._identity)
        else:
            self._say(f"{self._identity} follows: {holder(found)} holds {self._name}")
            following()

    def _free(self, found: Manifest, now: float) -> bool:
        """Whether nobody else holds *found*: given up, ours, or not renewed before our eyes for its whole time."""
        version = str(found["metadata"]["resourceVersion"])
        blind = now - self._looked > self._seconds * BLIND_SHARE
        self._looked = now
        if version != self._watched or blind:
            self._watched, self._since = version, now
        lasts = (found.get("spec") or {}).get("leaseDurationSeconds") or self._seconds
        return holder(found) in ("", self._identity) or now - self._since > lasts

    async def _renew(self) -> None:
        mine = self._written or await self._read()
        if mine is not None and holder(mine) != self._identity:
            self._until = float("-inf")
            raise NotLeading(f"{holder(mine) or 'nobody'} holds {self._name} now: this replica ends")
        await self._write(mine, holder=self._identity)
        self._said = ""

    async def _read(self) -> Manifest | None:
        try:
            return await self._call(Request("GET", path(LEASES, *self._name)))
        except Missing:
            return None

    async def _write(self, found: Manifest | None, *, holder: str | None) -> None:
        """Write upon *found*, and on no later one; None makes the Lease. It is ours from when this was asked."""
        asked = self._clock()
        url = path(LEASES, self._name.namespace, "" if found is None else self._name.name)
        body = renewed(found, self._name, holder=holder, seconds=self._seconds, now=datetime.now(UTC))
        self._written = await self._call(Request("POST" if found is None else "PUT", url, body=body))
        if holder is not None:
            self._until = asked + self._seconds * HOLD_SHARE

    def _say(self, text: str, *, level: int = logging.INFO) -> None:
        """Once, until something else is to be said: looks come every half second."""
        if text != self._said:
            log.log(level, text)
            self._said = text


def holder(lease: Manifest) -> str:
    """Who holds *lease*; empty where nobody does."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def renewed(found: Manifest | None, name: LeaseName, *, holder: str | None, seconds: float, now: datetime) -> Manifest:
    """The Lease to write upon *found* (None: there is none), held by *holder* from *now* on; None gives it up."""
    time_ = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    before = {} if found is None else found.get("spec") or {}
    same = holder is None or before.get("holderIdentity") == holder
    transitions = int(before.get("leaseTransitions") or 0) + (found is not None and not same)
    spec = {
        "leaseDurationSeconds": max(1, round(seconds)),
        "acquireTime": before.get("acquireTime", time_) if same else time_,
        "renewTime": time_,
        "leaseTransitions": transitions,
    }
    metadata = name._asdict() if found is None else found["metadata"]
    return {
        "apiVersion": LEASES.api_version,
        "kind": "Lease",
        "metadata": metadata,
        "spec": spec if holder is None else {"holderIdentity": holder} | spec,
    }
