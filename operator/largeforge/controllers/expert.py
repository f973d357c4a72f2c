"""Expert: resolved, fitting, loaded on every ready pod, proven to answer there; and nothing else called by its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from largeforge.api.expert import Expert, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.meta import Condition
from largeforge.api.names import COMPATIBLE, INFERENCESERVICE_LABEL, Reason
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Trouble, list_models
from largeforge.controllers.enginepods import engine_pods
from largeforge.controllers.expertplacement import Observed, Placing
from largeforge.controllers.expertrules import mismatch, resolve, without_slot
from largeforge.controllers.expertstatus import status_of
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.namesakes import taken
from largeforge.controllers.plan import M, Plan, read, report_unreadable
from largeforge.controllers.rounds import AGAIN_SECONDS, Decision, carry_out
from largeforge.controllers.transitions import turned
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, PODS, Cluster, Resource
from largeforge.resources.names import adapter_owner

DRAIN_SECONDS = 30.0
"""From the last probe, which comes right before routers are sent to a new name, until the old one is unloaded.

Routers learn of it within a second; a request that was let in goes on in vLLM though its name be gone."""
SLOT_SECONDS = 30.0
"""How often an Expert without a slot looks whether one is free."""


async def reconcile(key: Key, context: Context) -> float | None:
    """Bring one Expert a step further."""
    raw = await context.cluster.get(EXPERTS, key.namespace, key.name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # its service, which is woken too, unloads what belongs to no Expert
    expert = read(Expert, raw)
    if isinstance(expert, ValidationError):
        await report_unreadable(context.cluster, raw, expert, now=context.now())
        return None
    observed = await observe(context, expert)
    return await carry_out(observed, partial(decide, expert), context, raw)


async def observe(context: Context, expert: Expert) -> Observed:
    """Read all that `decide` needs."""
    cluster, namespace, name = context.cluster, expert.metadata.namespace, expert.metadata.name
    source, target = expert.spec.source_ref, expert.spec.inference_service_ref.name
    job = await _get(cluster, FINETUNEJOBS, FineTuneJob, namespace, source.name) if source else None
    namesake = await _get(cluster, INFERENCESERVICES, InferenceService, namespace, name)
    service = (
        namesake if target == name else await _get(cluster, INFERENCESERVICES, InferenceService, namespace, target)
    )
    held_by = namesake.metadata if namesake else None
    if service is None:
        return Observed(job=job, namesake=held_by)
    key = engine_key(namespace_key(context.master_key, namespace), service.metadata.uid)
    pods = engine_pods(await cluster.list(PODS, namespace, labels={INFERENCESERVICE_LABEL: target}))
    others = [read(Expert, e) for e in await cluster.list(EXPERTS, namespace) if e["metadata"]["name"] != name]
    return Observed(
        key=key,
        job=job,
        service=service,
        namesake=held_by,
        siblings=[e for e in others if isinstance(e, Expert) and e.spec.inference_service_ref.name == target],
        pods=pods,
        listings=await list_models(pods, context.engines, key=key) if service.spec.lora else {},
    )


async def _get(cluster: Cluster, resource: Resource, model: type[M], namespace: str, name: str) -> M | None:
    """The object, or None where it is not there or not readable; a newer kind of it is as good as gone."""
    raw = await cluster.get(resource, namespace, name)
    found = None if raw is None else read(model, raw)
    return None if isinstance(found, ValidationError) else found


def decide(expert: Expert, observed: Observed, now: datetime) -> Decision:
    """What to write and to ask so that *expert* is served. Deciding again on the result asks for nothing."""
    resolved, lineage, artifact = resolve(expert, observed.job)
    fits = compatible(expert, resolved, observed)
    wish = resolved if fits.status == "True" else None
    placing = Placing(expert, observed, wish=wish, old=_still_served(expert, observed, wish, fits))
    calls = list(placing.calls())
    status = status_of(placing, [artifact, fits], resolved=resolved, lineage=lineage, now=now)
    drain = _drain(status.last_probe_time, now=now)
    cleanup = _unwanted(placing)
    waits = [AGAIN_SECONDS] if any(p.error for p in (status.placement.pods if status.placement else [])) else []
    waits += [SLOT_SECONDS] if fits.reason == Reason.SLOTS_EXHAUSTED else []
    waits += [drain] if cleanup and drain > 0 else []
    return Decision(
        plan=Plan(
            events=turned(expert.status.conditions, status.conditions),
            status=status,
            again_after=min(waits, default=None),
        ),
        calls=calls,
        cleanup=[] if drain > 0 else cleanup,
    )


def compatible(expert: Expert, resolved: Resolved | None, observed: Observed) -> Condition:
    """`Compatible`: whether the service can serve what was resolved."""
    name, service = expert.spec.inference_service_ref.name, observed.service
    held_by = taken(expert, observed.namesake)
    if held_by is not None:
        return _fits("False", Reason.NAME_TAKEN, held_by)
    if service is None:
        said = f"spec.inferenceServiceRef: no InferenceService {name!r} in namespace {expert.metadata.namespace!r}"
        return _fits("False", Reason.SERVICE_NOT_FOUND, said)
    if resolved is None:
        return _fits("Unknown", Reason.PENDING, "there is no artifact yet")
    problem = mismatch(expert, resolved, service) or without_slot(expert, observed.siblings, service)
    if problem is not None:
        return _fits("False", problem.reason, problem.message)
    return _fits("True", Reason.COMPATIBLE, f"InferenceService {name!r} can serve it")


def _fits(status: str, reason: str, message: str) -> Condition:
    return Condition.model_validate({"type": COMPATIBLE, "status": status, "reason": reason, "message": message})


def _still_served(expert: Expert, observed: Observed, wish: Resolved | None, fits: Condition) -> Resolved | None:
    """The version that is placed, where it is not the wish and nothing but the new version speaks against it."""
    placed = expert.status.placement.resolved if expert.status.placement else None
    if placed is None or observed.service is None or (wish is not None and placed.engine_name == wish.engine_name):
        return None
    if fits.reason in (Reason.NAME_TAKEN, Reason.SLOTS_EXHAUSTED) or mismatch(expert, placed, observed.service):
        return None
    same_name = expert.spec.type == "Adapter" or placed.engine_name == observed.service.metadata.name
    return placed if same_name else None


def _unwanted(placing: Placing) -> Sequence[Call]:
    """Versions of this Expert, and of no other, that engines still have."""
    wanted = {version.engine_name for version in (placing.wish, placing.old) if version is not None}
    # Once the name has changed, the old one only drains.
    if placing.served is not None and placing.served == placing.wish:
        wanted = {placing.served.engine_name}
    return [
        Call("unload", pod, name)
        for pod in placing.ready
        if not isinstance(listing := placing.observed.listings.get(pod.uid, frozenset()), Trouble)
        for name in sorted(listing - wanted)
        if adapter_owner(name) == placing.expert.metadata.name
    ]


def _drain(last: datetime | None, *, now: datetime) -> float:
    """Seconds until an unwanted name may go; counted from what status says, so that a restart forgets nothing."""
    return 0.0 if last is None else (last + timedelta(seconds=DRAIN_SECONDS) - now).total_seconds()
