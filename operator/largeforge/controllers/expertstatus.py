"""What an Expert's status says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from largeforge.api.expertstatus import ExpertStatus
from largeforge.api.meta import Condition, condition
from largeforge.api.names import LOADED, PROBED, READY, RECONCILING, Reason
from largeforge.controllers.expertplacement import Placing
from largeforge.controllers.expertsource import Found, source_text
from largeforge.controllers.plan import changed
from largeforge.controllers.transitions import without

PASSING = frozenset(
    {Reason.PENDING, Reason.SOURCE_NOT_COMPLETE, Reason.SERVICE_NOT_READY, Reason.INSPECTING, Reason.DELIVERING}
)
"""Reasons that end by themselves: the object is on its way."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found before any pod is looked at."""

    found: Found
    fits: Condition
    """`Compatible`."""
    loaded: Condition | None = None
    """`Loaded`, where that is not for the pods to say."""
    apart: Condition | None = None
    """`Distinct`, where something new is known of it."""


def status_of(placing: Placing, findings: Findings, *, now: datetime, **fields: object) -> ExpertStatus:
    """The whole status; *fields* are those that the pods have no part in."""
    found, expert = findings.found, placing.expert
    details = [found.condition, findings.fits, findings.loaded or _loaded(placing), _probed(placing)]
    ready = _ready(placing, details)
    conditions = [*details, *([findings.apart] if findings.apart is not None else []), ready]
    before = expert.status.model_copy(update={"conditions": without(expert.status.conditions, RECONCILING)})
    coming = _reconciling(placing, findings.loaded, details, ready)
    if coming is not None:
        before = expert.status
        conditions.append(coming)
    return changed(
        before,
        conditions,
        generation=expert.metadata.generation,
        now=now,
        resolved=found.resolved,
        placement=placing.placement(),
        lineage=found.lineage,
        evaluation=found.evaluation,
        inspection=found.inspection,
        source=source_text(expert, found.lineage),
        last_probe_time=now if placing.proving else expert.status.last_probe_time,
        **fields,
    )


def _loaded(placing: Placing) -> Condition:
    """`Loaded`: on all ready pods."""
    wish = placing.wish
    if wish is None:
        return Condition(type=LOADED, status="Unknown", reason=Reason.PENDING, message="there is nothing to load")
    if not placing.ready:
        return Condition(type=LOADED, status="False", reason=Reason.SERVICE_NOT_READY, message=_no_pod(placing))
    for pod in placing.ready:
        if not placing.loaded(pod, wish):
            trouble = placing.trouble(pod, wish)
            said = f"{wish.uri} on pod {pod.name}: {trouble.message if trouble else 'not loaded yet'}"
            reason = (trouble.reason if trouble else None) or Reason.LOAD_FAILED
            return Condition(type=LOADED, status="False", reason=reason, message=said)
    said = f"{wish.engine_name} on {len(placing.ready)} ready pods"
    return Condition(type=LOADED, status="True", reason=Reason.LOADED, message=said)


def _no_pod(placing: Placing) -> str:
    service = placing.observed.service
    name = placing.expert.spec.service_name
    told = condition(service.status.conditions, READY) if service else None
    why = f": {told.message}" if told is not None and told.status != "True" and told.message else ""
    return f"no pod of InferenceService {name!r} is ready{why}"


def _probed(placing: Placing) -> Condition:
    """`Probed`: all ready pods that have it answered a generation."""
    wish = placing.wish
    if wish is None or not placing.ready:
        return Condition(type=PROBED, status="Unknown", reason=Reason.PENDING, message="there is nothing to probe")
    for pod in placing.ready:
        if not placing.proven(pod, wish):
            loaded, trouble = placing.loaded(pod, wish), placing.trouble(pod, wish)
            said = f"pod {pod.name}: {trouble.message if trouble else 'not asked yet'}"
            reason = (trouble.reason if trouble else None) or Reason.PROBE_FAILED
            reason = reason if loaded else Reason.PENDING
            return Condition(type=PROBED, status="False" if loaded else "Unknown", reason=reason, message=said)
    said = f"{wish.engine_name} answered on {len(placing.ready)} ready pods"
    return Condition(type=PROBED, status="True", reason=Reason.PROBED, message=said)


def _ready(placing: Placing, details: Sequence[Condition]) -> Condition:
    """`Ready`: at least one ready pod serves what routers are sent to, proven."""
    if placing.expert.spec.stage == "Archived":
        said = "spec.stage is Archived; set another stage to serve it again"
        return Condition(type=READY, status="False", reason=Reason.ARCHIVED, message=said)
    served = placing.served
    answering = [] if served is None else [pod for pod in placing.ready if placing.proven(pod, served)]
    if served is not None and answering:
        said = f"served as {served.engine_name} on {len(answering)} of {len(placing.observed.pods)} pods"
        return Condition(type=READY, status="True", reason=Reason.READY, message=said)
    lacking = next(c for c in details if c.status != "True")
    return Condition(type=READY, status="False", reason=lacking.reason, message=lacking.message)


def _reconciling(
    placing: Placing, held: Condition | None, details: Sequence[Condition], ready: Condition
) -> Condition | None:
    """`Reconciling`, while something is on its way by itself."""
    wish, pods = placing.wish, placing.observed.pods
    if wish is not None:
        proven = sum(placing.proven(pod, wish) for pod in pods)
        if placing.served == wish and pods and proven == len(pods):
            return None
        said = next((c.message for c in details if c.status != "True"), f"{proven} of {len(pods)} pods have it")
    elif held is not None:
        said = held.message
    elif ready.reason in PASSING:
        said = ready.message
    else:
        return None
    return Condition(type=RECONCILING, status="True", reason=Reason.RECONCILING, message=said)
