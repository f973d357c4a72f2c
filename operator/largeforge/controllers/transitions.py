"""What a change of conditions is to people: an Event where Ready turned, and no condition that is no longer true."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.meta import Condition, condition
from largeforge.api.names import READY, Reason
from largeforge.controllers.plan import Event

CALM = frozenset(
    {
        Reason.READY,
        Reason.RECONCILING,
        Reason.PENDING,
        Reason.SCALED_TO_ZERO,
        Reason.STOPPED,
        Reason.INSPECTING,
        Reason.SOURCE_NOT_COMPLETE,
        Reason.SERVICE_NOT_READY,
        Reason.DELIVERING,
        Reason.REMOVING,
        Reason.ARCHIVED,
    }
)
"""Reasons that are no fault: they pass by themselves, or somebody wanted it so."""


def turned(before: Sequence[Condition], after: Sequence[Condition]) -> list[Event]:
    """An Event where Ready got another status or reason; none for one wait after another of a new object."""
    old, new = condition(before, READY), condition(after, READY)
    if new is None or (old is not None and (old.status, old.reason) == (new.status, new.reason)):
        return []
    calm = new.reason in CALM
    waited = old is None or (old.reason in CALM and old.status != "True")
    if calm and waited and new.status != "True":
        return []
    return [Event(new.reason, new.message, "Normal" if calm and (old is None or new.status == "True") else "Warning")]


def without(conditions: Sequence[Condition], kind: str) -> list[Condition]:
    """*conditions* but for the one of type *kind*: those that are shown only while they are true."""
    return [c for c in conditions if c.type != kind]
