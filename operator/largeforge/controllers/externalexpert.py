"""An Expert of type External: nothing of it is in the cluster; the namespace's router asks its endpoint and reports."""

from __future__ import annotations

from datetime import datetime, timedelta

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import ExpertStatus
from largeforge.api.meta import Condition, ObjectMeta, condition
from largeforge.api.names import ARTIFACT_RESOLVED, COMPATIBLE, LOADED, PROBED, READY, RECONCILING, Reason
from largeforge.api.routerreport import ExpertReport
from largeforge.controllers.expertrouting import distinct, external_probe
from largeforge.controllers.expertsource import source_text
from largeforge.controllers.namesakes import taken
from largeforge.controllers.plan import changed
from largeforge.controllers.routerreports import Report
from largeforge.controllers.transitions import without

TIME_SECONDS = 600
"""A probe comes each minute; its time is written only so often, so that an object at rest is not written."""


def external_status(expert: Expert, namesake: ObjectMeta | None, report: Report, *, now: datetime) -> ExpertStatus:
    """The whole status, of what the router reports."""
    held_by = taken(expert, namesake, name=expert.metadata.name)
    probed = external_probe(expert, report)
    apart, routing = distinct(expert, report)
    status = expert.status
    told = probed if probed is not None else condition(status.conditions, PROBED)
    details = [
        _fine(ARTIFACT_RESOLVED, "an External expert has no files here"),
        _fine(COMPATIBLE, "its endpoint serves it")
        if held_by is None
        else _not(COMPATIBLE, Reason.NAME_TAKEN, held_by),
        _fine(LOADED, "its endpoint serves it"),
        *([probed] if probed is not None else []),
        *([apart] if apart is not None else []),
    ]
    ready = _ready(expert, held_by, told)
    before = status.model_copy(update={"conditions": without(status.conditions, RECONCILING)})
    url = expert.spec.endpoint.url if expert.spec.endpoint is not None else None
    return changed(
        before,
        [*details, ready],
        generation=expert.metadata.generation,
        now=now,
        resolved=None,
        placement=None,
        source=source_text(expert, None),
        routing=routing,
        endpoint=url if ready.status == "True" else None,
        last_probe_time=_probe_time(expert, report),
    )


def _ready(expert: Expert, held_by: str | None, probed: Condition | None) -> Condition:
    if expert.spec.stage == "Archived":
        return _not(READY, Reason.ARCHIVED, "spec.stage is Archived; set another stage to serve it again")
    if held_by is not None:
        return _not(READY, Reason.NAME_TAKEN, held_by)
    if probed is None or probed.status != "True":
        reason, said = (probed.reason, probed.message) if probed else (Reason.PENDING, "no router has asked it yet")
        return _not(READY, reason, said)
    return Condition(type=READY, status="True", reason=Reason.READY, message="its endpoint answered the router")


def _probe_time(expert: Expert, report: Report) -> datetime | None:
    before = expert.status.last_probe_time
    probe = report.probe if isinstance(report, ExpertReport) else None
    if probe is None or not probe.ok:
        return before
    asked = probe.time.replace(microsecond=0)
    return asked if before is None or asked - before >= timedelta(seconds=TIME_SECONDS) else before


def _fine(kind: str, message: str) -> Condition:
    return Condition(type=kind, status="True", reason=Reason.NOT_REQUESTED, message=message)


def _not(kind: str, reason: str, message: str) -> Condition:
    return Condition(type=kind, status="False", reason=reason, message=message)
