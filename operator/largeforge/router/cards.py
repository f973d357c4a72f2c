"""What the list of models says of an Expert beside its name."""

from __future__ import annotations

from largeforge.api.expert import Expert
from largeforge.router.openai import About, Unready


def about(expert: Expert | None) -> About:
    """Of a name that can be asked for; of an InferenceService's only that it is one."""
    if expert is None:
        return About("InferenceService")
    routing = expert.spec.routing
    return About("Expert", tuple(routing.domains), expert.spec.version, routing.fallback)


def waiting(expert: Expert, why: str) -> Unready:
    """Of one that cannot answer."""
    return Unready(expert.metadata.name, why, tuple(expert.spec.routing.domains), expert.spec.version)
