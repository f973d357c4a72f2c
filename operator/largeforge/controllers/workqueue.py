"""Which object to look at next: each key once, one worker for a key at a time, backoff for each key alone."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from largeforge.api.redact import redact
from largeforge.controllers import metrics
from largeforge.controllers.logs import about
from largeforge.kube.cluster import ClusterError

log = logging.getLogger(__name__)

FIRST_BACKOFF = 0.5
LAST_BACKOFF = 120.0
"""Seconds; a cluster that is gone for an hour must not keep its objects waiting much longer than that."""
DEADLINE = 120.0
"""Seconds that one look may take; a call that hangs must not hold the key for ever."""


class Key(NamedTuple):
    """An object of the queue's kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.namespace}/{self.name}"


Reconcile = Callable[[Key], Awaitable[float | None]]
"""Looks at one object, whether it is still there or not; returns the seconds until the next look, if there is one."""


class WorkQueue:
    """Keys to look at. `add` is what events call; the rest is `run`."""

    def __init__(self, kind: str, reconcile: Reconcile, *, workers: int = 4) -> None:
        self.kind = kind
        self._reconcile = reconcile
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: dict[Key, float] = {}
        """Since when each waits, by the monotonic clock; the first has waited longest."""
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        metrics.queue_of(kind)
        metrics.QUEUE_LENGTH.labels(kind).set_function(lambda: len(self._queued))
        metrics.QUEUE_OLDEST.labels(kind).set_function(self._oldest)
        metrics.FAILING.labels(kind).set_function(lambda: len(self._failures))

    def add(self, key: Key) -> None:
        """Look at *key* soon: at once, or right after the look that is under way. A wake that was planned is off."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued[key] = time.monotonic()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Look at *key* in *seconds*, or sooner where that was planned already."""
        loop = asyncio.get_running_loop()
        planned = self._timers.get(key)
        if planned is not None and planned.when() <= loop.time() + seconds:
            return
        if planned is not None:
            planned.cancel()
        self._timers[key] = loop.call_later(seconds, self.add, key)

    async def run(self) -> None:
        """Work for ever; a reconcile that raises is tried again later, and never ends a worker."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            del self._queued[key]
            self._active.add(key)
            try:
                with about(self.kind, *key):
                    again = await self._look(key)
            finally:
                self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self._after_wake(key)
            elif again is not None:
                self.add_after(key, again)

    def _after_wake(self, key: Key) -> None:
        """A key that was woken meanwhile: at once where its look went well, else after its backoff."""
        failures = self._failures.get(key, 0)
        if failures:
            self.add_after(key, backoff(failures))
        else:
            self.add(key)

    async def _look(self, key: Key) -> float | None:
        try:
            with metrics.RECONCILE_SECONDS.labels(self.kind).time():
                async with asyncio.timeout(DEADLINE):
                    again = await self._reconcile(key)
        except (ClusterError, TimeoutError) as exc:
            reason = exc.reason if isinstance(exc, ClusterError) else "Timeout"
            return self._failed(key, reason, f"{type(exc).__name__}: {exc}")
        except Exception:  # one object that meets a mistake of ours must not end the worker of all others
            log.exception("%s %s: a mistake in the operator", self.kind, key)
            return self._failed(key, "Mistake", "see the trace above")
        self._failures.pop(key, None)
        return again

    def _failed(self, key: Key, reason: str, cause: str) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = backoff(failures)
        metrics.RECONCILE_ERRORS.labels(self.kind, reason).inc()
        log.warning("%s %s: tried %d times, again in %.1f s: %s", self.kind, key, failures, delay, redact(cause))
        return delay

    def _oldest(self) -> float:
        return time.monotonic() - next(iter(self._queued.values())) if self._queued else 0.0


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, with a quarter of jitter."""
    delay = min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LAST_BACKOFF)
    return delay * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
