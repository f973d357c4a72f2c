"""Experts and InferenceServices share one space of names, the router's: the older object holds a name."""

from __future__ import annotations

from datetime import UTC, datetime

from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import ObjectMeta

_NEVER = datetime.max.replace(tzinfo=UTC)


def taken(mine: Expert | InferenceService, other: ObjectMeta | None) -> str | None:
    """What to say where *other*, an object of the other kind and the same name, is older; a tie is the service's."""
    if other is None:
        return None
    is_expert = isinstance(mine, Expert)
    ours = (mine.metadata.creation_timestamp or _NEVER, is_expert)
    theirs = (other.creation_timestamp or _NEVER, not is_expert)
    if ours < theirs:
        return None
    kind = "InferenceService" if is_expert else "Expert"
    return f"{kind} {other.name!r} is older and holds this name at the router; make this object under another name"
