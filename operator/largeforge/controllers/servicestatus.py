"""What an InferenceService's status says: how Ready is decided, and why it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from largeforge.api.inferenceservice import InferenceService, InferenceServiceStatus, ServingPod
from largeforge.api.meta import Condition, ObjectMeta, is_true
from largeforge.api.names import READY, RECONCILING, Reason
from largeforge.api.redact import redact
from largeforge.controllers.engine import Call, Listing, trouble_of
from largeforge.controllers.enginepods import EnginePod
from largeforge.controllers.namesakes import taken
from largeforge.controllers.plan import Event, Plan, changed
from largeforge.controllers.podstate import Problem
from largeforge.controllers.rounds import Asked
from largeforge.controllers.transitions import turned, without
from largeforge.kube.cluster import Manifest
from largeforge.resources.drift import covers
from largeforge.resources.names import engine_name
from largeforge.resources.owner import controller_uid
from largeforge.resources.serving import engine_url


@dataclass(frozen=True, slots=True)
class Observed(Asked):
    """What a decision is made of, beside the object."""

    deployment: Manifest | None = None
    service: Manifest | None = None
    pods: Sequence[EnginePod] = ()
    missing: Problem | None = None
    """The first claim that is named and not there; looked for only while not every replica is ready."""
    experts: Sequence[Manifest] = ()
    """All of the namespace, as they are: one that we cannot read still owns its adapter."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """What the engines of ready pods serve, by the pod's uid; asked only where there are adapters."""


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


def rolled_out(seen: Manifest | None, desired: Manifest) -> bool:
    """Whether the Deployment has what we want, and every replica is of it."""
    if seen is None or not covers(seen, desired):
        return False
    status, replicas = seen.get("status", {}), desired["spec"]["replicas"]
    return bool(
        status.get("observedGeneration", 0) >= seen["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) == replicas == status.get("replicas", 0)
    )


def status_of(
    service: InferenceService, observed: Observed, *, rolled: bool, now: datetime
) -> tuple[InferenceServiceStatus, Sequence[Event]]:
    """The whole status, and what to tell people of it."""
    desired = service.spec.replicas
    pods = [_serving_pod(service, observed, pod) for pod in observed.pods]
    ready = sum(pod.ready and proven(service, observed, pod) for pod in observed.pods)
    complete = rolled and ready == len(pods) == desired
    adapters = sorted(name for e in observed.experts if (name := _placed_adapter(e, service)) is not None)
    status = _said(
        service,
        _conditions(service, observed, ready=ready, complete=complete),
        now=now,
        url=engine_url(service),
        replicas=len(pods),
        ready_replicas=ready,
        summary=f"{ready}/{desired}",
        adapters=adapters,
        adapter_count=len(adapters),
        pods=pods,
    )
    return status, turned(service.status.conditions, status.conditions)


def _said(
    service: InferenceService, conditions: Sequence[Condition], *, now: datetime, **fields: Any
) -> InferenceServiceStatus:
    """The status with *conditions*; Reconciling is there only while it is among them."""
    before = service.status
    if not any(c.type == RECONCILING for c in conditions):
        before = before.model_copy(update={"conditions": without(before.conditions, RECONCILING)})
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


def _conditions(service: InferenceService, observed: Observed, *, ready: int, complete: bool) -> list[Condition]:
    """Ready, and Reconciling while replicas are missing."""
    desired = service.spec.replicas
    names = (ObjectMeta.model_validate(e["metadata"]) for e in observed.experts)
    held_by = taken(service, next((each for each in names if each.name == service.metadata.name), None))
    if held_by is not None:
        return [Condition(type=READY, status="False", reason=Reason.NAME_TAKEN, message=held_by)]
    if desired == 0:
        said = "spec.replicas is 0; raise it to serve"
        return [Condition(type=READY, status="False", reason=Reason.SCALED_TO_ZERO, message=said)]
    if complete:
        said = f"{ready} of {desired} replicas answered a generation"
        return [Condition(type=READY, status="True", reason=Reason.READY, message=said)]
    held = _held_up(service, observed)
    on_the_way = Condition(type=RECONCILING, status="True", reason=held.reason, message=held.message)
    if ready and is_true(service.status.conditions, READY):
        said = f"{ready} of {desired} replicas answered a generation; see Reconciling"
        return [Condition(type=READY, status="True", reason=Reason.READY, message=said), on_the_way]
    return [Condition(type=READY, status="False", reason=held.reason, message=held.message), on_the_way]


def _held_up(service: InferenceService, observed: Observed) -> Problem:
    """The one thing to say about what is missing: causes before waiting."""
    if observed.missing is not None:
        return observed.missing
    foreign = foreign_child(service, observed)
    if foreign is not None:
        return foreign
    for condition in (observed.deployment or {}).get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return Problem(Reason.REFUSED, f"pods are refused: {redact(condition.get('message', ''))}")
    some = f"{len(observed.pods)} pods are there, {service.spec.replicas} are wanted"
    return next(_pod_problems(service, observed), Problem(Reason.RECONCILING, some))


def _pod_problems(service: InferenceService, observed: Observed) -> Iterator[Problem]:
    for pod in observed.pods:
        if pod.problem is not None:
            yield Problem(pod.problem.reason, f"pod {pod.name}: {pod.problem.message}")
    for pod in observed.pods:
        trouble = trouble_of(observed.results, Call("probe", pod, service.metadata.name))
        if trouble is not None:
            yield Problem(Reason.ENGINE_SILENT, f"pod {pod.name}: {trouble.message}")
    for pod in observed.pods:
        if not pod.ready:
            yield Problem(Reason.RECONCILING, f"pod {pod.name} {pod.doing}")


def foreign_child(service: InferenceService, observed: Observed) -> Problem | None:
    """A Deployment or Service of our name that is another's, or that of a namesake which is being removed."""
    for kind, seen in (("Deployment", observed.deployment), ("Service", observed.service)):
        if seen is not None and controller_uid(seen) != service.metadata.uid:
            said = f"{kind} {engine_name(service.metadata.name)!r} belongs to another; remove it, or rename this object"
            return Problem(Reason.NAME_TAKEN, said)
    return None
