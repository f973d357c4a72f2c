"""What an InferenceService's status says: how Ready is decided, and why it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inferenceservicestatus import InferenceServiceStatus, ServedModelStatus, ServingPod, Warmup
from largeforge.api.inspect import ModelFacts
from largeforge.api.meta import Condition, ObjectMeta, is_true
from largeforge.api.names import INFERENCESERVICE_LABEL, READY, RECONCILING, STALLED, Reason
from largeforge.api.redact import redact
from largeforge.controllers.engine import Call, Listing, Measured, trouble_of
from largeforge.controllers.enginepods import EnginePod
from largeforge.controllers.namesakes import taken_from
from largeforge.controllers.plan import Event, Plan, changed
from largeforge.controllers.podstate import Problem
from largeforge.controllers.rounds import Asked
from largeforge.controllers.servicechildren import Children, foreign_child, refused_pods, scaling_trouble
from largeforge.controllers.servicejudge import Known, Verdict
from largeforge.controllers.transitions import turned, without
from largeforge.kube.cluster import Manifest
from largeforge.resources.fit import longest
from largeforge.resources.serving import engine_url

FOR_A_PERSON = frozenset(
    {Reason.BAD_ARGUMENT, Reason.MODEL_NOT_FOUND, Reason.UNSUPPORTED_ARCHITECTURE, Reason.NAME_TAKEN}
)
"""Reasons that time does not cure: `Stalled`, where others are `Reconciling`."""


@dataclass(frozen=True, slots=True)
class Observed(Asked):
    """What a decision is made of, beside the object."""

    children: Children = field(default_factory=Children)
    pods: Sequence[EnginePod] = ()
    known: Known = field(default_factory=Known)
    """What speaks for or against the model; `missing` is looked for only while not every replica is ready."""
    others: Sequence[InferenceService] = ()
    """The other InferenceServices of the namespace."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """What the engines of ready pods serve, by the pod's uid; asked only where there are adapters."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pods that there should be, and whether the Deployment has come to that."""

    replicas: int
    rolled_out: bool


def proven(service: InferenceService, observed: Observed, pod: EnginePod) -> bool:
    """Whether the pod's container answered a generation: in this pass, or in an earlier one."""
    call = Call("probe", pod, service.metadata.name)
    if call in observed.results:
        return observed.results[call] is None
    return any(p.uid == pod.uid and p.container_id == pod.container_id and p.proven for p in service.status.pods)


def refused(service: InferenceService, said: str, *, now: datetime) -> Plan:
    """The status where the API server does not take our objects."""
    ready = Condition(type=READY, status="False", reason=Reason.REFUSED, message=said)
    status = _said(service, [ready], now=now)
    return Plan(events=turned(service.status.conditions, status.conditions), status=status)


def status_of(
    service: InferenceService, observed: Observed, verdict: Verdict, wanted: Wanted, *, now: datetime
) -> tuple[InferenceServiceStatus, Sequence[Event]]:
    """The whole status, and what to tell people of it."""
    pods = [_serving_pod(service, observed, pod) for pod in observed.pods]
    ready = sum(pod.ready and proven(service, observed, pod) for pod in observed.pods)
    complete = wanted.rolled_out and ready == len(pods) == wanted.replicas
    adapters = sorted(name for e in observed.known.experts if (name := _placed_adapter(e, service)) is not None)
    status = _said(
        service,
        _conditions(service, observed, verdict, Count(ready=ready, wanted=wanted.replicas, complete=complete)),
        now=now,
        url=engine_url(service),
        replicas=len(pods),
        ready_replicas=ready,
        summary=f"{ready}/{wanted.replicas}",
        selector=f"{INFERENCESERVICE_LABEL}={service.metadata.name}",
        adapters=adapters,
        adapter_count=len(adapters),
        pods=pods,
        model=_model(service, verdict),
        fit=verdict.fit.line if verdict.fit is not None else service.status.fit,
        warmup=_warmup(service, observed, verdict),
    )
    return status, turned(service.status.conditions, status.conditions)


def _said(
    service: InferenceService, conditions: Sequence[Condition], *, now: datetime, **fields: Any
) -> InferenceServiceStatus:
    """The status with *conditions*; Reconciling and Stalled are there only while they are among them."""
    before = service.status
    for kind in (RECONCILING, STALLED):
        if not any(c.type == kind for c in conditions):
            before = before.model_copy(update={"conditions": without(before.conditions, kind)})
    return changed(before, conditions, generation=service.metadata.generation, now=now, **fields)


def _serving_pod(service: InferenceService, observed: Observed, pod: EnginePod) -> ServingPod:
    answered = proven(service, observed, pod)
    held = trouble_of(observed.results, Call("probe", pod, service.metadata.name)) or pod.problem
    return ServingPod(
        name=pod.name,
        uid=pod.uid,
        container_id=pod.container_id if answered else "",
        proven=answered,
        error=redact(held.message) if held else None,
    )


def _placed_adapter(expert: Manifest, service: InferenceService) -> str | None:
    spec = expert.get("spec", {})
    loaded = expert.get("status", {}).get("placement", {}).get("loaded", 0)
    ours = spec.get("type") == "Adapter" and spec.get("inferenceServiceRef", {}).get("name") == service.metadata.name
    return expert["metadata"]["name"] if ours and loaded else None


@dataclass(frozen=True, slots=True)
class Count:
    """The pods that answered, those that are wanted, and whether that is all there is to do."""

    ready: int
    wanted: int
    complete: bool


def _model(service: InferenceService, verdict: Verdict) -> ServedModelStatus | None:
    """What is served, or was last."""
    if verdict.source is None or verdict.facts is None:
        return service.status.model
    said = verdict.facts.model_dump(include=set(ModelFacts.model_fields))
    length = longest(service, verdict.facts)
    return ServedModelStatus.model_validate(said | {"uri": verdict.source.uri, "max_model_len": length})


def to_measure(service: InferenceService, observed: Observed) -> EnginePod | None:
    """The pod for the measured request: once all is Ready and written, and none of those that answered was measured."""
    answered = [pod for pod in observed.pods if pod.ready and proven(service, observed, pod)]
    measured = service.status.warmup.container_id if service.status.warmup is not None else None
    conditions = service.status.conditions
    if not answered or not is_true(conditions, READY) or any(is_true(conditions, k) for k in (RECONCILING, STALLED)):
        return None
    return None if any(pod.container_id == measured for pod in answered) else answered[0]


def _warmup(service: InferenceService, observed: Observed, verdict: Verdict) -> Warmup | None:
    """What was measured in this pass, else before; nothing where another model is served from now on."""
    before, seen = service.status.warmup, service.status.model
    if seen is not None and verdict.source is not None and seen.uri != verdict.source.uri:
        return None
    for call, outcome in observed.results.items():
        if call.verb != "measure" or not isinstance(outcome, Measured):
            continue
        return Warmup(
            ttft_ms=outcome.ttft_ms,
            tokens_per_second=f"{outcome.tokens_per_second:.1f}",
            start_seconds=call.pod.start_seconds,
            cold_start_seconds=before.cold_start_seconds if before is not None else call.pod.start_seconds,
            container_id=call.pod.container_id,
        )
    return before


def _conditions(service: InferenceService, observed: Observed, verdict: Verdict, count: Count) -> list[Condition]:
    """Ready; Reconciling while replicas are missing; Stalled where a person has to change something."""
    names = [ObjectMeta.model_validate(e["metadata"]) for e in observed.known.experts]
    if (held_by := taken_from(service, names, observed.others)) is not None:
        stalled = Condition(type=STALLED, status="True", reason=Reason.NAME_TAKEN, message=held_by)
        return [_not_ready(Problem(Reason.NAME_TAKEN, held_by)), stalled]
    if count.wanted == 0 and not observed.pods:
        return [_not_ready(_nothing_wanted(service))]
    if count.complete:
        said_ready = f"{count.ready} of {count.wanted} replicas answered a generation{_unscaled(observed)}"
        return [Condition(type=READY, status="True", reason=Reason.READY, message=said_ready)]
    held = _held_up(service, observed, verdict, count)
    refused = held == verdict.problem and not verdict.waits
    kind = STALLED if refused or held.reason in FOR_A_PERSON else RECONCILING
    why = Condition(type=kind, status="True", reason=held.reason, message=held.message)
    if count.ready and count.wanted and is_true(service.status.conditions, READY):
        said_ready = f"{count.ready} of {count.wanted} replicas answered a generation; see {kind}"
        return [Condition(type=READY, status="True", reason=Reason.READY, message=said_ready), why]
    return [_not_ready(held), why]


def _unscaled(observed: Observed) -> str:
    """What an autoscaler that does nothing says: the service is none the worse for it, until there is more to do."""
    trouble = scaling_trouble(observed.children)
    return f"; {redact(trouble, limit=300)}" if trouble is not None else ""


def _not_ready(problem: Problem) -> Condition:
    return Condition(type=READY, status="False", reason=problem.reason, message=problem.message)


def _nothing_wanted(service: InferenceService) -> Problem:
    if service.spec.stopped:
        return Problem(Reason.STOPPED, "spec.stopped is true; set it to false to serve")
    return Problem(Reason.SCALED_TO_ZERO, "spec.replicas is 0; raise it to serve")


def _held_up(service: InferenceService, observed: Observed, verdict: Verdict, count: Count) -> Problem:
    """Why replicas are missing: what can be named first, and what passes by itself last."""
    foreign = foreign_child(service, observed.children)
    if foreign is not None:
        return foreign
    if verdict.problem is not None:
        return verdict.problem
    if observed.known.missing is not None:
        return observed.known.missing
    if said := refused_pods(observed.children):
        return Problem(Reason.REFUSED, f"pods are refused: {redact(said[0])}")
    some = f"{len(observed.pods)} pods are there, {count.wanted} are wanted"
    return next(_pod_problems(service, observed), Problem(Reason.RECONCILING, some))


def _about_model(service: InferenceService, problem: Problem) -> str:
    """What the engine's own words leave out."""
    model = service.status.model
    if problem.reason != Reason.UNSUPPORTED_ARCHITECTURE or model is None or not model.architecture:
        return ""
    return f" ({model.architecture})"


def _pod_problems(service: InferenceService, observed: Observed) -> Iterator[Problem]:
    for pod in observed.pods:
        if pod.problem is not None:
            yield Problem(
                pod.problem.reason, f"pod {pod.name}: {pod.problem.message}{_about_model(service, pod.problem)}"
            )
    for pod in observed.pods:
        trouble = trouble_of(observed.results, Call("probe", pod, service.metadata.name))
        if trouble is not None:
            yield Problem(Reason.ENGINE_SILENT, f"pod {pod.name}: {trouble.message}")
    for pod in observed.pods:
        if not pod.ready:
            yield Problem(Reason.RECONCILING, f"pod {pod.name} {pod.doing}")
