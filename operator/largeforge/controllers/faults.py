"""What of a job's conditions is news of a fault: one Event for each that has turned. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from largeforge.api.meta import Condition, condition
from largeforge.api.names import (
    GATE_PASSED,
    LEFTOVERS_REMOVED,
    PUBLISHED,
    RUNNING,
    STORAGE_REACHABLE,
    VALIDATED,
    Reason,
)
from largeforge.controllers.plan import Event

CONDITIONS = (VALIDATED, STORAGE_REACHABLE, RUNNING, GATE_PASSED, PUBLISHED, LEFTOVERS_REMOVED)
"""Of a job's conditions, those that say a fault when they are False."""
CALM = frozenset(
    {
        Reason.PENDING,
        Reason.PREFLIGHT,
        Reason.WAITING,
        Reason.SUSPENDED,
        Reason.SUCCEEDED,
        Reason.REMOVING,
        Reason.NOT_REQUESTED,
        Reason.SOURCE_NOT_COMPLETE,
        Reason.RETRYING,  # has an Event of its own, with the attempt that ended
    }
)
"""Reasons of a condition that is False without a fault."""


def faults(before: Sequence[Condition], after: Sequence[Condition], *, holds: Container[str]) -> Iterator[Event]:
    """A Warning for each condition that has turned False for a fault; *holds* are said once, of Validated."""
    for kind in CONDITIONS:
        new, old = condition(after, kind), condition(before, kind)
        if new is None or new.status != "False" or new.reason in CALM or (kind == RUNNING and new.reason in holds):
            continue
        if old is None or (old.status, old.reason) != (new.status, new.reason):
            yield Event(new.reason, new.message, "Warning")
