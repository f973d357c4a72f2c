"""Object metadata and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.model import Model


class ObjectMeta(Model):
    """What we read of `metadata`."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = {}
    finalizers: list[str] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class Condition(Model):
    """One observed truth about the object, as in Kubernetes' API conventions."""

    type: Annotated[str, Field(min_length=1, max_length=64)]
    """The condition's name; one of each in the list."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """The cause in one CamelCase word; `docs/troubleshooting.md` has an entry for each."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """The cause in words, with the remedy where there is one."""
    observed_generation: int = 0
    """The `metadata.generation` that this was said of."""
    last_transition_time: datetime | None = None
    """When `status` last changed."""


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]
"""A status's conditions, one of each type."""


def with_condition(current: Sequence[Condition], new: Condition) -> list[Condition]:
    """Merge *new* by type; the transition time moves only when the status does."""
    old = next((c for c in current if c.type == new.type), None)
    if old is None:
        return [*current, new]
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return [new if c.type == new.type else c for c in current]


def condition(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of type *kind*, if it was set."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether the condition of type *kind* is True."""
    found = condition(conditions, kind)
    return found is not None and found.status == "True"
