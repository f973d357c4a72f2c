"""InferenceService: an engine's Deployment, Service and key, and the proof that each replica answers."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from pydantic import ValidationError

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.names import INFERENCESERVICE_LABEL, Reason
from largeforge.api.uri import parse_pvc
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Trouble, list_models
from largeforge.controllers.enginepods import EnginePod, engine_pods
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.plan import Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.rounds import AGAIN_SECONDS, Decision, carry_out
from largeforge.controllers.servicestatus import Observed, foreign_child, proven, refused, rolled_out, status_of
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import (
    DEPLOYMENTS,
    EXPERTS,
    INFERENCESERVICES,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    SERVICES,
    Cluster,
    Invalid,
    Manifest,
)
from largeforge.resources.drift import covers
from largeforge.resources.names import adapter_owner, engine_name
from largeforge.resources.owner import controller_uid
from largeforge.resources.serving import engine_key_secret, serving_deployment, serving_service

REFUSED_SECONDS = 60.0
"""What the API server refused may be allowed later: a quota, a policy, a name."""


async def reconcile(key: Key, context: Context) -> float | None:
    """Bring one InferenceService a step further."""
    cluster, now = context.cluster, context.now()
    raw = await cluster.get(INFERENCESERVICES, key.namespace, key.name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # what it made goes with it, by owner references
    service = read(InferenceService, raw)
    if isinstance(service, ValidationError):
        await report_unreadable(cluster, raw, service, now=now)
        return None
    observed = await observe(context, service)
    try:
        return await carry_out(observed, partial(decide, service, settings=context.settings), context, raw)
    except Invalid as exc:
        await execute(refused(service, str(exc), now=now), cluster, raw, now=now)
        return REFUSED_SECONDS


async def observe(context: Context, service: InferenceService) -> Observed:
    """Read all that `decide` needs."""
    cluster, namespace, name = context.cluster, service.metadata.namespace, service.metadata.name
    key = engine_key(namespace_key(context.master_key, namespace), service.metadata.uid)
    pods = engine_pods(await cluster.list(PODS, namespace, labels={INFERENCESERVICE_LABEL: name}))
    lacking = sum(pod.ready for pod in pods) < service.spec.replicas
    return Observed(
        key=key,
        deployment=await cluster.get(DEPLOYMENTS, namespace, engine_name(name)),
        service=await cluster.get(SERVICES, namespace, engine_name(name)),
        pods=pods,
        missing=await _missing_claim(cluster, service) if lacking else None,
        experts=await cluster.list(EXPERTS, namespace),
        listings=await list_models(pods, context.engines, key=key) if service.spec.lora else {},
    )


async def _missing_claim(cluster: Cluster, service: InferenceService) -> Problem | None:
    namespace = service.metadata.namespace
    named = {"spec.model.uri": service.spec.model.uri}
    if service.spec.lora is not None:
        named["spec.lora.store"] = service.spec.lora.store
    for where, uri in named.items():
        claim = parse_pvc(uri).claim
        found = await cluster.get(PERSISTENTVOLUMECLAIMS, namespace, claim)
        if found is None:
            said = f"{where}: no PersistentVolumeClaim {claim!r} in namespace {namespace!r}; create it"
            return Problem(Reason.STORAGE_NOT_READY, said)
        if found.get("status", {}).get("phase") == "Lost":
            return Problem(Reason.STORAGE_NOT_READY, f"{where}: PersistentVolumeClaim {claim!r} has lost its volume")
    return None


def decide(service: InferenceService, observed: Observed, now: datetime, *, settings: Settings) -> Decision:
    """What to write and to ask so that *service* is served. Deciding again on the result asks for nothing."""
    key = observed.key
    image = settings.engine_image if service.spec.compute.gpus_per_replica else settings.engine_cpu_image
    deployment = serving_deployment(service, image=image, pull_policy=settings.image_pull_policy, key=key)
    stale = [
        desired
        for desired, seen in ((serving_service(service), observed.service), (deployment, observed.deployment))
        if seen is None or (controller_uid(seen) == service.metadata.uid and not covers(seen, desired))
    ]
    status, events = status_of(service, observed, rolled=rolled_out(observed.deployment, deployment), now=now)
    silent = any(pod.error for pod in status.pods)
    foreign = foreign_child(service, observed) is not None
    waits_unseen = observed.missing is not None or foreign
    lacks_key = not foreign and _lacks_key(observed, deployment)
    return Decision(
        plan=Plan(
            create=[engine_key_secret(service, key=key)] if lacks_key else [],
            apply=stale,
            events=events,
            status=status,
            again_after=AGAIN_SECONDS if silent or waits_unseen else None,
        ),
        calls=[Call("probe", pod, service.metadata.name) for pod in _unproven(service, observed)],
        cleanup=_orphans(service, observed),
    )


def _lacks_key(observed: Observed, desired: Manifest) -> bool:
    """Whether the key's Secret may be missing: nobody here may look, so it is made before it is first named."""
    seen, name = observed.deployment, _secret_name(desired)
    if (None if seen is None else _secret_name(seen)) != name:
        return True
    held = [pod.problem for pod in observed.pods if pod.problem is not None]
    return any(p.reason == Reason.SECRET_MISSING and repr(name) in p.message for p in held)


def _secret_name(deployment: Manifest) -> str | None:
    for variable in deployment["spec"]["template"]["spec"]["containers"][0].get("env", []):
        if variable["name"] == "VLLM_API_KEY":
            name: str | None = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
            return name
    return None


def _unproven(service: InferenceService, observed: Observed) -> list[EnginePod]:
    """Ready pods whose container has not answered a generation, and was not asked for one in this pass."""
    name = service.metadata.name
    return [
        pod
        for pod in observed.pods
        if pod.ready and not proven(service, observed, pod) and Call("probe", pod, name) not in observed.results
    ]


def _orphans(service: InferenceService, observed: Observed) -> list[Call]:
    """Adapters whose Expert is gone or serves elsewhere. One that routers may still be sent to here stays for now."""
    ours = {e["metadata"]["name"] for e in observed.experts if _serves_on(e, service)}
    found = []
    for pod in observed.pods:
        listing = observed.listings.get(pod.uid)
        if listing is None or isinstance(listing, Trouble):
            continue
        routed = {name for e in observed.experts if (name := _routed_to(e, pod)) is not None}
        found += [
            Call("unload", pod, name)
            for name in sorted(listing - routed)
            if (owner := adapter_owner(name)) is not None and owner not in ours
        ]
    return found


def _serves_on(expert: Manifest, service: InferenceService) -> bool:
    named = expert.get("spec", {}).get("inferenceServiceRef", {}).get("name")
    return named is None or named == service.metadata.name


def _routed_to(expert: Manifest, pod: EnginePod) -> str | None:
    placement = expert.get("status", {}).get("placement", {})
    if any(entry.get("uid") == pod.uid and entry.get("loaded") for entry in placement.get("pods", [])):
        name: str | None = placement.get("engineName")
        return name
    return None
