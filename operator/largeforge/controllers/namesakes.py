"""Experts and InferenceServices share one space of names, the router's: the older object holds a name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import ObjectMeta

_NEVER = datetime.max.replace(tzinfo=UTC)


def taken(mine: Expert | InferenceService, other: ObjectMeta | None, *, name: str | None = None) -> str | None:
    """What to say where *other*, an object of the other kind, is older and holds *name* (by default its own).

    Of two equally old ones the service has it.
    """
    if other is None:
        return None
    is_expert = isinstance(mine, Expert)
    ours = (mine.metadata.creation_timestamp or _NEVER, is_expert)
    theirs = (other.creation_timestamp or _NEVER, not is_expert)
    if ours < theirs:
        return None
    kind = "InferenceService" if is_expert else "Expert"
    return _said(kind, other.name, name or other.name, is_expert=is_expert)


def oldest_holder(name: str, services: Iterable[InferenceService]) -> ObjectMeta | None:
    """The oldest of *services* that is served under *name*."""
    holders = [each.metadata for each in services if name in each.served_names]
    return min(holders, key=lambda each: (each.creation_timestamp or _NEVER, each.name), default=None)


def taken_from(
    service: InferenceService, experts: Iterable[ObjectMeta], others: Iterable[InferenceService]
) -> str | None:
    """What to say where another object is older and holds one of the names that *service* is served under."""
    names = service.served_names
    for expert in experts:
        if expert.name in names and (said := taken(service, expert)) is not None:
            return said
    ours = (service.metadata.creation_timestamp or _NEVER, service.metadata.name)
    for other in others:
        theirs = (other.metadata.creation_timestamp or _NEVER, other.metadata.name)
        common = [name for name in names if name in other.served_names]
        if common and theirs < ours:
            return _said("InferenceService", other.metadata.name, common[0], is_expert=False)
    return None


def _said(kind: str, holder: str, name: str, *, is_expert: bool) -> str:
    remedy = "make this object under another name" if is_expert else "choose another in spec.servedModelNames"
    return f"{kind} {holder!r} is older and holds the name {name!r} at the router; {remedy}"
