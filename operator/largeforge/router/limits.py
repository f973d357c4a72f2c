"""How many requests an Expert has under way, and who waits for a place: in the order of arrival, for a bounded time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from largeforge.router.openai import too_many
from largeforge.router.table import Route


class Waiter(Protocol):
    """A request that may have to wait."""

    def admitted(self) -> None:
        """A place is its own; it gives it back by `Gate.leave`."""


class Gate:
    """The places of one Expert. Whoever was let in, or waits, leaves exactly once."""

    __slots__ = ("_inside", "_most", "_name", "_queue_length", "_waiting")

    def __init__(self, name: str, most: int | None, *, queue_length: int) -> None:
        self._name = name
        self._most = most
        self._queue_length = queue_length
        self._inside: set[Waiter] = set()
        self._waiting: dict[Waiter, None] = {}
        """In the order of arrival."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """How many have a place."""
        return len(self._inside)

    def enter(self, waiter: Waiter, *, retry_after_seconds: int) -> bool:
        """Whether *waiter* has a place now; else it waits until `admitted`. An `ApiError` 429 where too many wait."""
        if self._free and not self._waiting:
            self._inside.add(waiter)
            return True
        if len(self._waiting) >= self._queue_length:
            raise too_many(
                f"expert '{self._name}' has {self._most} requests under way and {len(self._waiting)} waiting, and takes"
                " no more; try again, or raise its spec.limits.maxConcurrentRequests",
                retry_after_seconds=retry_after_seconds,
            )
        self._waiting[waiter] = None
        return False

    def leave(self, waiter: Waiter) -> None:
        """*waiter* has ended, or waits no longer; the one that waits longest gets the place."""
        if waiter in self._inside:
            self._inside.remove(waiter)
            self._fill()
        else:
            del self._waiting[waiter]

    def resize(self, most: int | None) -> None:
        """The Expert has changed: who is inside stays, and who now has a place gets it."""
        self._most = most
        self._fill()

    @property
    def _free(self) -> bool:
        return self._most is None or len(self._inside) < self._most

    def _fill(self) -> None:
        while self._waiting and self._free:
            waiter = next(iter(self._waiting))
            del self._waiting[waiter]
            self._inside.add(waiter)
            waiter.admitted()


class Gates:
    """The gate of each Expert that has a limit, or has requests under way that were let in by one."""

    def __init__(self, *, queue_length: int) -> None:
        self._queue_length = queue_length
        self._gates: dict[str, Gate] = {}

    def of(self, route: Route) -> Gate | None:
        """The gate that a request for *route* goes through; None where nothing bounds it."""
        return self._gates.get(route.name) if route.most is not None else None

    def use(self, routes: Mapping[str, Route]) -> None:
        """Take over the limits of *routes*."""
        for name, gate in list(self._gates.items()):
            route = routes.get(name)
            gate.resize(route.most if route is not None else None)
            if (route is None or route.most is None) and not gate.under_way:
                del self._gates[name]
        for name, route in routes.items():
            if route.most is not None and name not in self._gates:
                self._gates[name] = Gate(name, route.most, queue_length=self._queue_length)

    @property
    def waiting(self) -> dict[str, int]:
        """How many requests wait for each Expert."""
        return {name: gate.waiting for name, gate in self._gates.items()}
