"""Which of a route's pods gets a request: a pure function of what this router knows of each.

1. A pod whose breaker is open takes no part. Where all are open, the one whose pause ends first is tried: a router that
   refused by itself would turn one client's failing requests into everybody's.
2. A conversation goes to the pod that has its beginning in its prefix cache: the same on every replica, by rendezvous
   hashing, so that a pod that comes or goes moves its own share only. Not where that pod carries more than
   `IMBALANCE` times the mean and one.
3. Else the least load; those with as little take turns.

Load is what this router has under way there, and what the engine says that others have, where it has said so lately of
every candidate: like is compared with like.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from largeforge.router.breaker import Breaker
from largeforge.router.scan import Message

IMBALANCE = 1.25
"""Of the mean load, what a conversation's pod may carry and still get more."""
BEGINNING_BYTES = 16 * 1024
"""Of each message's content, what tells one conversation from another; behind it they share a pod."""
_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


class Candidate(Protocol):
    """What is known of a pod."""

    in_flight: int
    foreign: int
    """What the engine has under way for others."""
    fresh: bool
    """Whether `foreign` is of late."""
    breaker: Breaker
    number: int
    """64 bits by which every replica knows the pod."""


C = TypeVar("C", bound=Candidate)


def pick(candidates: Sequence[C], *, turn: int, now: float, key: int | None = None, avoid: C | None = None) -> C | None:
    """The pod for a request of the conversation *key*; never *avoid*. None where there is no other.

    *turn* counts up with each request, and breaks ties.
    """
    if len(candidates) == 1:
        only = candidates[0]
        return None if only is avoid else only
    allowed = [c for c in candidates if c is not avoid and (not c.breaker.shut or c.breaker.allows(now))]
    if not allowed:
        left = [c for c in candidates if c is not avoid]
        return min(left, key=lambda c: c.breaker.open_until) if left else None
    if len(allowed) == 1:
        return allowed[0]
    loads = _loads(allowed)
    if key is not None:
        home = _home([c.number for c in allowed], key)
        if loads[home] <= IMBALANCE * sum(loads) / len(loads) + 1:
            return allowed[home]
    least = min(loads)
    ties = loads.count(least)
    at = -1
    for _ in range(turn % ties + 1):
        at = loads.index(least, at + 1)
    return allowed[at]


def _loads(candidates: Sequence[C]) -> list[int]:
    for candidate in candidates:
        if not candidate.fresh:
            return [c.in_flight for c in candidates]
    return [c.in_flight + c.foreign for c in candidates]


def _home(numbers: Sequence[int], key: int) -> int:
    """The index of the pod that the conversation belongs to: highest of the pods' hashes with it (splitmix64)."""
    best = at = -1
    for index, number in enumerate(numbers):
        mixed = (number ^ key * _STEP) & _MASK
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        mixed ^= mixed >> 31
        if mixed > best:
            best, at = mixed, index
    return at


def conversation(route: str, messages: Sequence[Message]) -> int | None:
    """What stays of a conversation from turn to turn: its messages up to the user's first. None where there is none."""
    key = zlib.crc32(route.encode())
    for message in messages:
        key = zlib.crc32(message.role.encode(), key)
        key = zlib.crc32(memoryview(message.content)[:BEGINNING_BYTES], key)
        if message.role == "user":
            return key
    return None
