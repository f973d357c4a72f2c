"""Expert: resolved, fitting, loaded on every ready pod, proven to answer there; and nothing else called by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.meta import Condition
from largeforge.api.names import COMPATIBLE, INFERENCESERVICE_LABEL, Reason
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Tokens, Trouble, list_models
from largeforge.controllers.enginepods import engine_pods
from largeforge.controllers.expertplacement import Observed, Placing
from largeforge.controllers.expertrouting import distinct
from largeforge.controllers.expertrules import mismatch, template_problem, without_slot
from largeforge.controllers.expertsource import Found, of_job, service_model
from largeforge.controllers.expertstatus import status_of
from largeforge.controllers.externalexpert import external_status
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
DISPROVEN_SECONDS = 60.0
"""How often an adapter that answered, and wrongly, is asked again: its files may have been mended."""


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
    source, target = expert.spec.source_ref, expert.spec.service_name
    job = await _get(cluster, FINETUNEJOBS, FineTuneJob, namespace, source.name) if source else None
    namesake = await _get(cluster, INFERENCESERVICES, InferenceService, namespace, name)
    service = namesake if target == name else await _service(cluster, namespace, target)
    found = Observed(
        job=job, namesake=namesake.metadata if namesake else None, report=context.reports.of(namespace, name)
    )
    if service is None:
        return found
    key = engine_key(namespace_key(context.master_key, namespace), service.metadata.uid)
    pods = engine_pods(await cluster.list(PODS, namespace, labels={INFERENCESERVICE_LABEL: target}))
    others = [read(Expert, e) for e in await cluster.list(EXPERTS, namespace) if e["metadata"]["name"] != name]
    return replace(
        found,
        key=key,
        service=service,
        siblings=[e for e in others if isinstance(e, Expert) and e.spec.service_name == target],
        pods=pods,
        listings=await list_models(pods, context.engines, key=key) if service.spec.lora else {},
    )


async def _service(cluster: Cluster, namespace: str, name: str) -> InferenceService | None:
    return await _get(cluster, INFERENCESERVICES, InferenceService, namespace, name) if name else None


async def _get(cluster: Cluster, resource: Resource, model: type[M], namespace: str, name: str) -> M | None:
    """The object, or None where it is not there or not readable; a newer kind of it is as good as gone."""
    raw = await cluster.get(resource, namespace, name)
    found = None if raw is None else read(model, raw)
    return None if isinstance(found, ValidationError) else found


def decide(expert: Expert, observed: Observed, now: datetime) -> Decision:
    """What to write and to ask so that *expert* is served. Deciding again on the result asks for nothing."""
    if expert.spec.type == "External":
        status = external_status(expert, observed.namesake, observed.report, now=now)
        return Decision(Plan(events=turned(expert.status.conditions, status.conditions), status=status))
    found = _resolve(expert, observed)
    fits, asked = _fitting(expert, found.resolved, observed)
    archived = expert.spec.stage == "Archived"
    wish = found.resolved if fits.status == "True" and not archived else None
    old = None if archived else _still_served(expert, observed, wish, fits)
    placing = Placing(expert, observed, wish=wish, old=old)
    calls = [*asked, *placing.calls()]
    apart, routing = distinct(expert, observed.report)
    others = [apart] if apart is not None else []
    status = status_of(placing, found, fits, others, now=now, routing=routing)
    drain = _drain(status.last_probe_time, now=now)
    cleanup = _unwanted(placing)
    waits = [*_waits(placing, fits), *([drain] if cleanup and drain > 0 else [])]
    return Decision(
        plan=Plan(
            events=turned(expert.status.conditions, status.conditions),
            status=status,
            again_after=min(waits, default=None),
        ),
        calls=calls,
        cleanup=[] if drain > 0 else cleanup,
    )


def _resolve(expert: Expert, observed: Observed) -> Found:
    source, artifact = expert.spec.source_ref, expert.spec.artifact
    if source is not None:
        return of_job(expert, source, observed.job)
    assert artifact is not None  # noqa: S101 - the API server has made sure that one of three is there
    return service_model(expert, artifact.uri)


def _waits(placing: Placing, fits: Condition) -> list[float]:
    """When what sends no event is to be looked at again."""
    version = placing.wish or placing.old
    troubles = [] if version is None else [placing.trouble(pod, version) for pod in placing.ready]
    waits = [AGAIN_SECONDS if each.reason is None else DISPROVEN_SECONDS for each in troubles if each is not None]
    waits += [SLOT_SECONDS] if fits.reason == Reason.SLOTS_EXHAUSTED else []
    return [*waits, AGAIN_SECONDS] if fits.reason == Reason.ENGINE_SILENT else waits


def _fitting(expert: Expert, resolved: Resolved | None, observed: Observed) -> tuple[Condition, Sequence[Call]]:
    """`Compatible`, and what is still to be asked of an engine for it: whether its chat template is the trained one.

    That is asked before anything is loaded; a version that is proven somewhere has been asked for.
    """
    fits = compatible(expert, resolved, observed)
    ready = next((pod for pod in observed.pods if pod.ready), None)
    if fits.status != "True" or resolved is None or not resolved.probes or ready is None:
        return fits, ()
    placing = Placing(expert, observed, wish=resolved, old=None)
    if any(placing.loaded(pod, resolved) for pod in placing.ready) and expert.spec.type == "Adapter":
        return fits, ()
    call = Call("tokens", ready, expert.spec.service_name)
    match observed.results.get(call):
        case Tokens() as tokens:
            problem = template_problem(resolved, tokens, service=expert.spec.service_name)
            return (fits if problem is None else _fits("False", problem.reason, problem.message)), ()
        case Trouble() as trouble:
            return _fits("Unknown", Reason.ENGINE_SILENT, f"pod {ready.name}: {trouble.message}"), ()
        case _:
            return _fits("Unknown", Reason.PENDING, f"pod {ready.name} has not told its chat template yet"), [call]


def compatible(expert: Expert, resolved: Resolved | None, observed: Observed) -> Condition:
    """`Compatible`: whether the service can serve what was resolved."""
    name, service = expert.spec.service_name, observed.service
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
