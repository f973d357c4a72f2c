"""A run's Jobs and ConfigMaps: which of them go, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from largeforge.controllers.plan import Deletion, Plan
from largeforge.kube.cluster import CONFIGMAPS, JOBS, Manifest


def is_alive(manifest: Manifest) -> bool:
    """Whether it is not on its way out already."""
    return "deletionTimestamp" not in manifest["metadata"]


def all_of(jobs: Mapping[str, Manifest], configs: Sequence[Manifest]) -> list[Deletion]:
    """The deletion of everything; pods go with their Job."""
    return [
        *(Deletion.of(JOBS, batch) for batch in jobs.values() if is_alive(batch)),
        *(Deletion.of(CONFIGMAPS, config) for config in configs),
    ]


def at_their_time(
    plan: Plan, children: Sequence[Deletion], *, ended: datetime | None, ttl_seconds: int | None, now: datetime
) -> Plan:
    """*plan*, and the deletion of *children* once `ttlSecondsAfterFinished` is over; until then a look at that time."""
    if ended is None or ttl_seconds is None:
        return plan
    left = (ended + timedelta(seconds=ttl_seconds) - now).total_seconds()
    if left > 0:
        return replace(plan, again_after=min(filter(None, (plan.again_after, left))))
    return replace(plan, delete=[*plan.delete, *children])
