"""What an InferenceService says beside model and engine: adapters, resources, scaling, roll-out, storage, network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import PodTemplate, ResourceRequirements
from largeforge.api.model import LabelKey, LabelValue, Model, Quantity, keys_rule, rules
from largeforge.api.uri import PvcUriText

AutoscalingMetric = Literal["CPU", "RequestsWaiting", "RequestsRunning", "KVCacheUsage"]
TARGETS: dict[AutoscalingMetric, int] = {"CPU": 80, "RequestsWaiting": 5, "RequestsRunning": 32, "KVCacheUsage": 80}
"""What each metric is held at where the user says nothing; five waiting requests are vLLM's production stack's."""


class Lora(Model):
    """Adapters that are loaded while the engine runs."""

    model_config = rules(
        (
            "!has(self.maxCpuLoras) || self.maxCpuLoras > self.maxLoras",
            "maxCpuLoras must be above maxLoras: one slot stays free for swapping versions",
        ),
    )

    store: PvcUriText
    """The claim, and optionally a folder of it, where the adapters' files lie; mounted read-only."""
    max_loras: Annotated[int, Field(ge=1, le=256)] = 4
    """Adapters in one batch."""
    max_lora_rank: Annotated[int, Field(json_schema_extra={"enum": [8, 16, 32, 64, 128, 256, 320, 512]})] = 64
    """The highest rank of an adapter; one of vLLM's list."""
    max_cpu_loras: Annotated[int, Field(ge=2, le=1024)] | None = None
    """Slots for adapters in memory; by default maxLoras + 1. At most one Expert fewer than slots is served."""

    @property
    def slots(self) -> int:
        """Adapters that the engine holds in memory."""
        return self.max_cpu_loras if self.max_cpu_loras is not None else self.max_loras + 1


class ServingCompute(Model):
    """What each replica gets."""

    model_config = rules(
        (
            "self.gpusPerReplica > 0 || !has(self.gpuMemory)",
            "gpuMemory is the memory of a GPU; with gpusPerReplica: 0 set resources.limits.memory instead",
        ),
    )

    gpus_per_replica: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each replica; 0 serves on the CPU."""
    gpu_resource: Annotated[
        str, Field(min_length=3, max_length=128, pattern=r"^[a-z0-9][-a-z0-9.]*/[A-Za-z0-9][-A-Za-z0-9_.]*$")
    ] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    gpu_memory: Quantity | None = None
    """The memory of one GPU, for example 80Gi: with it, a model that cannot fit is refused before a pod is made."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the container."""
    pod_template: PodTemplate = PodTemplate()
    """What is laid over the pod."""


class Autoscaling(Model):
    """The number of pods follows a metric: a ScaledObject where KEDA is installed, else a HorizontalPodAutoscaler."""

    model_config = rules(
        ("self.minReplicas <= self.maxReplicas", "minReplicas must not be above maxReplicas"),
        (
            "!(self.metric in ['CPU', 'KVCacheUsage']) || !has(self.target) || self.target <= 100",
            "target is a percentage with the metrics CPU and KVCacheUsage; at most 100",
        ),
    )

    min_replicas: Annotated[int, Field(ge=1, le=64)] = 1
    """The fewest pods."""
    max_replicas: Annotated[int, Field(ge=1, le=64)]
    """The most pods."""
    metric: AutoscalingMetric = "RequestsWaiting"
    """What is measured, on average for each pod. CPU needs the metrics API; the others are the engine's own figures and
    need KEDA with a Prometheus (chart value `serving.prometheusAddress`), or an adapter of the custom metrics API."""
    target: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """What it is held at, for each pod: a percentage of the CPU request or of the KV cache, or a number of requests; by
    default 80, 5 waiting and 32 running."""

    @property
    def goal(self) -> int:
        """The target that holds."""
        return self.target if self.target is not None else TARGETS[self.metric]


class Rollout(Model):
    """How a changed pod template replaces the pods."""

    model_config = rules(
        (
            "!has(self.maxUnavailable) || self.maxSurge + self.maxUnavailable > 0",
            "one of maxSurge and maxUnavailable must be above 0",
        ),
    )

    max_surge: Annotated[int, Field(ge=0, le=64)] = 0
    """Pods beside the old ones; each needs GPUs and memory of its own."""
    max_unavailable: Annotated[int, Field(ge=0, le=64)] | None = None
    """Pods that may be missing meanwhile; by default 1, and 0 where maxSurge is set. With 0 nothing is interrupted."""

    @property
    def missing(self) -> int:
        """The pods that may be missing."""
        if self.max_unavailable is not None:
            return self.max_unavailable
        return 0 if self.max_surge else 1


class Startup(Model):
    """How long a pod may take to start."""

    timeout_seconds: Annotated[int, Field(ge=60, le=14_400)] = 1800
    """Seconds until an engine that is not healthy is started anew: download, loading, compilation."""


class ServingCache(Model):
    """What a restarted engine finds again."""

    uri: PvcUriText
    """`pvc://claim/path`: weights of the hub and what vLLM compiled are kept there; writable for the pods."""


class NetworkPeer(Model):
    """Pods that may connect to the engine."""

    model_config = rules(
        (
            "has(self.namespaceLabels) || has(self.podLabels)",
            "a peer needs namespaceLabels, podLabels or both",
        ),
        keys_rule("namespaceLabels"),
        keys_rule("podLabels"),
    )

    namespace_labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=16)] | None = None
    """Labels of their namespace; by default this object's own namespace."""
    pod_labels: Annotated[dict[LabelKey, LabelValue], Field(min_length=1, max_length=16)] | None = None
    """Labels of the pods; by default all of the namespace."""


class ServingNetworkPolicy(Model):
    """Who may connect to the engine's port: the router, the operator and the node's kubelet, and who is named here."""

    enabled: bool = True
    """Whether there is a NetworkPolicy; a network plugin has to enforce it."""
    allow_from: Annotated[list[NetworkPeer], Field(max_length=16)] = []
    """More peers, for example a Prometheus that reads the engine's metrics."""


class ServiceOptions(Model):
    """The Service in front of the engine."""

    model_config = rules(keys_rule("annotations"))

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """The type of the Service; clients ordinarily come through the router, which needs ClusterIP only."""
    annotations: Annotated[
        dict[Annotated[str, Field(max_length=316)], Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = {}
    """Annotations of the Service, for example a cloud load balancer's."""
