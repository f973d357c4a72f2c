"""What the routers of an Expert's namespace report of it: how its examples tell it apart, how its endpoint answers."""

from __future__ import annotations

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import RoutingStatus
from largeforge.api.meta import Condition, condition
from largeforge.api.names import DISTINCT, PROBED, Reason
from largeforge.api.routerreport import ExpertReport, RoutingReport
from largeforge.controllers.routerreports import NoRouter, Report

ENOUGH = 0.8
"""Of the examples, so many must be taken for the Expert's own."""
NO_ROUTER = "no router serves this namespace; add it to the chart's router.namespaces"


def distinct(expert: Expert, report: Report) -> tuple[Condition | None, RoutingStatus | None]:
    """`Distinct` and `status.routing`. None and what was said before, where nothing new is known."""
    if isinstance(report, NoRouter):
        return _distinct("Unknown", Reason.NO_ROUTER, NO_ROUTER), None
    learnt = report.routing if isinstance(report, ExpertReport) else None
    if learnt is None or _is_old(expert, report):
        if condition(expert.status.conditions, DISTINCT) is not None:
            return None, expert.status.routing
        return _distinct("Unknown", Reason.PENDING, "no router has reported on it yet"), None
    return _judged(learnt), _status(learnt)


def external_probe(expert: Expert, report: Report) -> Condition | None:
    """`Probed` of an External expert, by its router's last probe; None where nothing new is known."""
    if isinstance(report, NoRouter):
        return Condition(type=PROBED, status="Unknown", reason=Reason.NO_ROUTER, message=NO_ROUTER)
    probe = report.probe if isinstance(report, ExpertReport) else None
    if probe is None or _is_old(expert, report):
        before = condition(expert.status.conditions, PROBED)
        if before is not None and before.observed_generation == expert.metadata.generation:
            return None
        said = "no router has asked it yet"
        return Condition(type=PROBED, status="Unknown", reason=Reason.PENDING, message=said)
    if probe.ok:
        return Condition(type=PROBED, status="True", reason=Reason.PROBED, message="its endpoint answered the router")
    return Condition(type=PROBED, status="False", reason=Reason.PROBE_FAILED, message=f"spec.endpoint: {probe.message}")


def _is_old(expert: Expert, report: Report) -> bool:
    """Whether the router has not seen the newest spec."""
    return isinstance(report, ExpertReport) and report.generation != expert.metadata.generation


def _judged(learnt: RoutingReport) -> Condition:
    if learnt.self_accuracy is None:
        said = learnt.message or "spec.routing.examples is empty: keywords and domains alone route to it"
        return _distinct("Unknown", Reason.NO_EXAMPLES, said)
    hint = f"; {learnt.message}" if learnt.message else ""
    share = f"{learnt.self_accuracy:.0%} of its {learnt.examples} examples are taken for its own"
    if learnt.self_accuracy >= ENOUGH:
        return _distinct("True", Reason.DISTINCT, share + hint)
    others = ", ".join(f"{each.examples} for {each.expert!r}" for each in learnt.overlaps[:4])
    remedy = "give examples that only it should get, or negativeExamples"
    return _distinct("False", Reason.OVERLAPS, f"{share}{f', {others}' if others else ''}; {remedy}{hint}")


def _status(learnt: RoutingReport) -> RoutingStatus:
    accuracy = None if learnt.self_accuracy is None else f"{learnt.self_accuracy:.2f}"
    return RoutingStatus(examples=learnt.examples, self_accuracy=accuracy, overlaps=learnt.overlaps)


def _distinct(status: str, reason: str, message: str) -> Condition:
    return Condition.model_validate({"type": DISTINCT, "status": status, "reason": reason, "message": message})
