"""What an InferenceService is made of, compared with what the cluster has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import FIELD_MANAGER, Reason
from largeforge.controllers.plan import Deletion
from largeforge.controllers.podstate import Problem
from largeforge.controllers.settings import Settings
from largeforge.kube.cluster import (
    DEPLOYMENTS,
    HORIZONTALPODAUTOSCALERS,
    NETWORKPOLICIES,
    PODDISRUPTIONBUDGETS,
    SCALEDOBJECTS,
    SERVICES,
    Cluster,
    Manifest,
    Resource,
)
from largeforge.resources.drift import covers
from largeforge.resources.names import engine_name
from largeforge.resources.owner import controller_uid
from largeforge.resources.serving import serving_service
from largeforge.resources.servingguards import (
    disruption_budget,
    horizontal_pod_autoscaler,
    network_policy,
    replicas_handed_over,
    scaled_object,
)

KINDS: Mapping[Resource, str] = {
    SERVICES: "Service",
    PODDISRUPTIONBUDGETS: "PodDisruptionBudget",
    NETWORKPOLICIES: "NetworkPolicy",
    DEPLOYMENTS: "Deployment",
    HORIZONTALPODAUTOSCALERS: "HorizontalPodAutoscaler",
    SCALEDOBJECTS: "ScaledObject",
}
"""All are named alike; in the order in which they are applied."""
HPA, KEDA = KINDS[HORIZONTALPODAUTOSCALERS], KINDS[SCALEDOBJECTS]


@dataclass(frozen=True, slots=True)
class Children:
    """The objects of that name that are there."""

    seen: Mapping[Resource, Manifest | None] = field(default_factory=dict)
    keda: bool = False
    """Whether the cluster has KEDA's CRD; asked only where there is autoscaling."""

    @property
    def deployment(self) -> Manifest | None:
        """The engine's Deployment."""
        return self.seen.get(DEPLOYMENTS)


async def observe_children(cluster: Cluster, service: InferenceService) -> Children:
    """Read them; a ScaledObject only where there may be one."""
    namespace, name = service.metadata.namespace, engine_name(service.metadata.name)
    keda = service.spec.autoscaling is not None and await cluster.serves(SCALEDOBJECTS)
    kinds = [kind for kind in KINDS if kind != SCALEDOBJECTS or keda or service.status.autoscaler == KEDA]
    return Children({kind: await cluster.get(kind, namespace, name) for kind in kinds}, keda)


def autoscaler_of(service: InferenceService, children: Children, settings: Settings) -> str | None:
    """The kind of the object that sets the number of pods, where one does."""
    autoscaling = service.spec.autoscaling
    if autoscaling is None or service.spec.stopped:
        return None
    asked = autoscaling.metric == "CPU" or settings.prometheus_address is not None
    return KEDA if children.keda and asked else HPA


def desired_children(
    service: InferenceService, deployment: Manifest | None, children: Children, settings: Settings
) -> dict[Resource, Manifest | None]:
    """What should be there; *deployment* is None where none can be built, and the one that is there stays."""
    wanted: dict[Resource, Manifest | None] = {
        SERVICES: serving_service(service),
        PODDISRUPTIONBUDGETS: disruption_budget(service),
        NETWORKPOLICIES: network_policy(service, operator_namespace=settings.operator_namespace),
        HORIZONTALPODAUTOSCALERS: None,
        SCALEDOBJECTS: None,
    }
    if deployment is not None:
        wanted[DEPLOYMENTS] = deployment
    autoscaling, kind = service.spec.autoscaling, autoscaler_of(service, children, settings)
    if autoscaling is not None and kind == HPA:
        wanted[HORIZONTALPODAUTOSCALERS] = horizontal_pod_autoscaler(service, autoscaling)
    if autoscaling is not None and kind == KEDA:
        wanted[SCALEDOBJECTS] = scaled_object(service, autoscaling, prometheus=settings.prometheus_address)
    return wanted


def to_apply(
    service: InferenceService, children: Children, wanted: Mapping[Resource, Manifest | None]
) -> list[Manifest]:
    """What the cluster lacks or has otherwise; what is another's is left alone."""
    return [
        manifest
        for kind in KINDS
        if (manifest := wanted.get(kind)) is not None
        and ((seen := children.seen.get(kind)) is None or (_is_ours(service, seen) and not covers(seen, manifest)))
    ]


def to_delete(
    service: InferenceService, children: Children, wanted: Mapping[Resource, Manifest | None]
) -> list[Deletion]:
    """What was made and is not wanted any more."""
    return [
        Deletion.of(kind, seen)
        for kind, manifest in wanted.items()
        if manifest is None and (seen := children.seen.get(kind)) is not None and _is_ours(service, seen)
    ]


def to_hand_over(service: InferenceService, children: Children, *, buildable: bool) -> list[Manifest]:
    """The Deployment's replicas, where we have them and an autoscaler shall, or where a stop has to come through."""
    seen = children.deployment
    if seen is None or not _is_ours(service, seen):
        return []
    now = int(seen.get("spec", {}).get("replicas", 1))
    if service.spec.stopped:
        return [] if buildable or now == 0 else [replicas_handed_over(service, replicas=0)]
    autoscaling = service.spec.autoscaling
    # At 0, a HorizontalPodAutoscaler does nothing: it is how one stops it.
    if autoscaling is None or not (now == 0 or applies_replicas(seen)):
        return []
    least, most = autoscaling.min_replicas, autoscaling.max_replicas
    return [replicas_handed_over(service, replicas=min(max(now, least), most))]


def applies_replicas(deployment: Manifest) -> bool:
    """Whether `spec.replicas` of *deployment* is among the fields that we apply."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", [])
    )


def wanted_replicas(service: InferenceService, children: Children) -> int:
    """The pods that there should be: by the spec, or by what an autoscaler has written last."""
    if (fixed := service.desired_replicas) is not None:
        return fixed
    least = service.spec.autoscaling.min_replicas if service.spec.autoscaling is not None else 1
    return int((children.deployment or {}).get("spec", {}).get("replicas", least))


def foreign_child(service: InferenceService, children: Children) -> Problem | None:
    """An object of our name that is another's, or that of a namesake which is being removed."""
    return next(_foreign(service, children.seen), None)


def _foreign(service: InferenceService, seen: Mapping[Resource, Manifest | None]) -> Iterator[Problem]:
    for kind, manifest in seen.items():
        if manifest is not None and not _is_ours(service, manifest):
            name = engine_name(service.metadata.name)
            said = f"{KINDS[kind]} {name!r} belongs to another; remove it, or rename this object"
            yield Problem(Reason.NAME_TAKEN, said)


def _is_ours(service: InferenceService, manifest: Manifest) -> bool:
    return controller_uid(manifest) == service.metadata.uid


def rolled_out(children: Children, desired: Manifest | None, *, replicas: int) -> bool:
    """Whether the Deployment has what we want, and every replica is of it."""
    seen = children.deployment
    if seen is None or desired is None or not covers(seen, desired):
        return False
    status = seen.get("status", {})
    return bool(
        status.get("observedGeneration", 0) >= seen["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) == replicas == status.get("replicas", 0)
    )


def scaling_trouble(children: Children) -> str | None:
    """Why the autoscaler leaves the pods as they are, in its own words; None where nothing keeps it from its work."""
    for kind, word in ((HORIZONTALPODAUTOSCALERS, "ScalingActive"), (SCALEDOBJECTS, "Ready")):
        for condition in (children.seen.get(kind) or {}).get("status", {}).get("conditions", []):
            idle = condition.get("reason") == "ScalingDisabled"  # at 0 pods, as one wants it
            if condition.get("type") == word and condition.get("status") == "False" and not idle:
                return f"{KINDS[kind]}: {condition.get('message', '')}"
    return None


def refused_pods(children: Children) -> Sequence[str]:
    """What the API server says of pods that it does not take."""
    conditions = (children.deployment or {}).get("status", {}).get("conditions", [])
    return [
        str(c.get("message", "")) for c in conditions if c.get("type") == "ReplicaFailure" and c.get("status") == "True"
    ]
