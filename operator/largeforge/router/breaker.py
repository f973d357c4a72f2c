"""One pod's circuit breaker: after failures on end it is left alone for a while, then one request tries it."""

from __future__ import annotations

THRESHOLD = 3
"""Failures on end that open it. Each cost its client a second attempt, so they are few."""
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0
"""A pod that stays broken longer is no endpoint any more, by its readiness probe."""


class Breaker:
    """Closed, open until a time, or half open: then one request at a time is let through to find out."""

    __slots__ = ("_pause", "_probe", "failures", "open_until", "shut")

    def __init__(self) -> None:
        self.shut = False
        """Whether it is open or half open; all that a request looks at while it is closed."""
        self.open_until = 0.0
        self.failures = 0
        """On end."""
        self._pause = 0.0
        self._probe = False

    def allows(self, now: float) -> bool:
        """Whether a request may try the pod."""
        return not self.shut or (now >= self.open_until and not self._probe)

    def started(self, now: float) -> bool:
        """A request goes to the pod; returns whether it is the one that finds out, and so must end in a verdict."""
        if not self.shut or now < self.open_until or self._probe:
            return False
        self._probe = True
        return True

    def succeeded(self) -> None:
        """The pod has answered: closed."""
        self.shut = self._probe = False
        self.failures = 0
        self._pause = 0.0

    def failed(self, now: float) -> None:
        """The pod took no connection, died before it answered, or answered 5xx."""
        self.failures += 1
        self._probe = False
        if self.failures >= THRESHOLD:
            self.shut = True
            self._pause = min(self._pause * 2 or FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS)
            self.open_until = now + self._pause

    def undecided(self) -> None:
        """The request that was to find out ended before the pod said anything: the next one does."""
        self._probe = False
