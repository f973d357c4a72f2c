"""InferenceService: an engine's Deployment, what stands around it, and the proof that each replica answers."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from pydantic import ValidationError

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.names import INFERENCESERVICE_LABEL, READY, Reason
from largeforge.api.uri import ConfigMapUri, HfUri, parse
from largeforge.controllers import servicechildren as made
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Trouble, list_models
from largeforge.controllers.enginepods import EnginePod, engine_pods
from largeforge.controllers.inspection import decide as decide_inspection
from largeforge.controllers.inspection import look
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.plan import Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.rounds import AGAIN_SECONDS, Decision, carry_out
from largeforge.controllers.servicejudge import Known, Verdict, judge, question
from largeforge.controllers.servicestatus import Observed, Wanted, proven, refused, status_of, to_measure
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import (
    CONFIGMAPS,
    EXPERTS,
    INFERENCESERVICES,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    Cluster,
    Invalid,
    Manifest,
)
from largeforge.resources.names import adapter_owner
from largeforge.resources.serving import EngineInstallation, engine_key_secret, serving_deployment

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
    children = await made.observe_children(cluster, service)
    lacking = sum(pod.ready for pod in pods) < made.wanted_replicas(service, children)
    others = [read(InferenceService, raw) for raw in await cluster.list(INFERENCESERVICES, namespace)]
    experts = tuple(await cluster.list(EXPERTS, namespace))
    missing = await _missing(cluster, service) if lacking else None
    asked = question(service, experts, context.settings) if missing is None else None
    step = None if asked is None else decide_inspection(asked, await look(cluster, asked.job), now=context.now())
    return Observed(
        key=key,
        children=children,
        pods=pods,
        known=Known(experts, missing, step),
        others=[o for o in others if isinstance(o, InferenceService) and o.metadata.name != name],
        listings=await list_models(pods, context.engines, key=key) if service.spec.lora else {},
    )


async def _missing(cluster: Cluster, service: InferenceService) -> Problem | None:
    """The first claim or ConfigMap that is named and not there."""
    namespace, spec = service.metadata.namespace, service.spec
    named = {
        "spec.model.uri": spec.model.uri,
        "spec.model.tokenizer": spec.model.tokenizer,
        "spec.engine.chatTemplate": spec.engine.chat_template,
        "spec.engine.speculativeConfig.model": spec.engine.speculative_config and spec.engine.speculative_config.model,
        "spec.lora.store": spec.lora and spec.lora.store,
        "spec.cache.uri": spec.cache and spec.cache.uri,
    }
    for where, uri in named.items():
        place = parse(uri) if uri else None
        if place is None or isinstance(place, HfUri):
            continue
        kind, resource, name = (
            ("ConfigMap", CONFIGMAPS, place.name)
            if isinstance(place, ConfigMapUri)
            else ("PersistentVolumeClaim", PERSISTENTVOLUMECLAIMS, place.claim)
        )
        found = await cluster.get(resource, namespace, name)
        if found is None:
            said = f"{where}: no {kind} {name!r} in namespace {namespace!r}; create it"
            return Problem(Reason.STORAGE_NOT_READY, said)
        if found.get("status", {}).get("phase") == "Lost":
            return Problem(Reason.STORAGE_NOT_READY, f"{where}: {kind} {name!r} has lost its volume")
        if isinstance(place, ConfigMapUri) and place.key not in {
            **found.get("data", {}),
            **found.get("binaryData", {}),
        }:
            return Problem(Reason.STORAGE_NOT_READY, f"{where}: ConfigMap {name!r} has no entry {place.key!r}; add it")
    return None


def decide(service: InferenceService, observed: Observed, now: datetime, *, settings: Settings) -> Decision:
    """What to write and to ask so that *service* is served. Deciding again on the result asks for nothing."""
    children, key = observed.children, observed.key
    verdict = judge(service, observed.known, settings)
    deployment = _deployment(service, verdict, key, settings)
    wanted = made.desired_children(service, deployment, children, settings)
    replicas = made.wanted_replicas(service, children)
    goal = Wanted(replicas, rolled_out=made.rolled_out(children, deployment, replicas=replicas))
    autoscaler = made.autoscaler_of(service, children, settings)
    status, events = status_of(service, observed, verdict, goal, now=now)
    status = status.model_copy(update={"autoscaler": autoscaler})
    silent = any(pod.error for pod in status.pods)
    foreign = made.foreign_child(service, children) is not None
    taken = any(c.type == READY and c.reason == Reason.NAME_TAKEN for c in status.conditions)
    unseen = foreign or taken or verdict.waits or observed.known.missing is not None
    waits = [AGAIN_SECONDS] if silent or unseen else []
    step = observed.known.inspection
    waits += [step.again_after] if step is not None and step.again_after is not None else []
    lacks_key = deployment is not None and not foreign and _lacks_key(observed, deployment)
    return Decision(
        plan=Plan(
            delete=[*made.to_delete(service, children, wanted), *(step.delete if step is not None else ())],
            hand_over=made.to_hand_over(service, children, buildable=deployment is not None),
            create=[
                *([engine_key_secret(service, key=key)] if lacks_key else []),
                *(step.create if step is not None else ()),
            ],
            apply=made.to_apply(service, children, wanted),
            events=events,
            status=status,
            again_after=min(waits, default=None),
        ),
        calls=_calls(service, observed),
        cleanup=_orphans(service, observed),
    )


def _deployment(service: InferenceService, verdict: Verdict, key: str, settings: Settings) -> Manifest | None:
    if verdict.source is None or verdict.problem is not None:
        return None
    image = settings.engine_image if service.spec.compute.gpus_per_replica else settings.engine_cpu_image
    installation = EngineInstallation(
        image=image,
        pull_policy=settings.image_pull_policy,
        key=key,
        hub_endpoint=settings.hub_endpoint,
        proxy=settings.proxy,
    )
    return serving_deployment(service, verdict.source, installation=installation)


def _lacks_key(observed: Observed, desired: Manifest) -> bool:
    """Whether the key's Secret may be missing: nobody here may look, so it is made before it is first named."""
    seen, name = observed.children.deployment, _secret_name(desired)
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


def _calls(service: InferenceService, observed: Observed) -> list[Call]:
    """The proofs that are missing; then, once, the measured request."""
    name = service.metadata.name
    calls = [Call("probe", pod, name) for pod in _unproven(service, observed)]
    pod = to_measure(service, observed)
    measure = None if pod is None else Call("measure", pod, name)
    return [*calls, measure] if measure is not None and measure not in observed.results else calls


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
    ours = {e["metadata"]["name"] for e in observed.known.experts if _serves_on(e, service)}
    found = []
    for pod in observed.pods:
        listing = observed.listings.get(pod.uid)
        if listing is None or isinstance(listing, Trouble):
            continue
        routed = {name for e in observed.known.experts if (name := _routed_to(e, pod)) is not None}
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
