"""Who is let in: connections in all, and requests under way for each client."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from largeforge.router.openai import SERVER, ApiError, too_many

TURNED_AWAY = 64
"""Connections without room that are kept until they have read why; more of them are closed at once."""


class Guest(Protocol):
    """A connection, as it is counted."""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way on it."""
        ...

    def abort(self) -> None:
        """Close at once."""


G = TypeVar("G", bound=Guest)


class Connections(Generic[G]):
    """Every client's connection, and room for the next.

    Where there is none, the oldest that never showed a valid key goes, so that who only opens connections cannot keep
    others out; after those, one that lies idle.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: set[G] = set()
        self._strangers: dict[G, None] = {}
        """Those that have not shown a valid key, the oldest first."""
        self._turned_away: dict[G, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[G]:
        """Those of now, also those that are just being turned away; others may come and go meanwhile."""
        return iter((*self._all, *self._turned_away))

    def opened(self, guest: G) -> bool:
        """Count *guest*; False where there is no room for it, and it must go."""
        if len(self._all) >= self._most:
            leaving = next(itertools.chain(self._strangers, (known for known in self._all if known.idle)), None)
            if leaving is None:
                self._turn_away(guest)
                return False
            self.closed(leaving)
            leaving.abort()
        self._all.add(guest)
        self._strangers[guest] = None
        return True

    def known(self, guest: G) -> None:
        """It has shown a valid key."""
        self._strangers.pop(guest, None)

    def closed(self, guest: G) -> None:
        """Forget it."""
        self._all.discard(guest)
        self._strangers.pop(guest, None)
        self._turned_away.pop(guest, None)

    def _turn_away(self, guest: G) -> None:
        if len(self._turned_away) >= TURNED_AWAY:
            oldest = next(iter(self._turned_away))
            self.closed(oldest)
            oldest.abort()
        self._turned_away[guest] = None


class Quota:
    """Requests under way for each client, from the end of a request's head to the end of its answer."""

    def __init__(self, most: int, *, retry_after_seconds: int) -> None:
        self._most = most
        self._retry_after_seconds = retry_after_seconds
        self.under_way: dict[str, int] = {}

    def enter(self, client: str) -> None:
        """Count a request, or raise an `ApiError` 429."""
        count = self.under_way.get(client, 0)
        if count >= self._most:
            raise too_many(
                f"client '{client or 'anonymous'}' has {count} requests under way and may have no more; wait for one of"
                " them to end, or ask for a higher LARGEFORGE_MAX_REQUESTS_PER_CLIENT",
                retry_after_seconds=self._retry_after_seconds,
            )
        self.under_way[client] = count + 1

    def leave(self, client: str) -> None:
        """The request has ended, in whatever way."""
        count = self.under_way[client] - 1
        if count:
            self.under_way[client] = count
        else:
            del self.under_way[client]


def no_room(most: int, *, retry_after_seconds: int) -> ApiError:
    """503 for a connection too many."""
    return ApiError(
        503,
        f"the router serves {most} connections and takes no more; close idle ones, and try again",
        kind=SERVER,
        code="too_many_connections",
        headers={"retry-after": str(retry_after_seconds)},
    )
