"""`InferenceService`: one base model, served by vLLM, with adapters loaded while it runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import PodTemplate, ResourceRequirements
from largeforge.api.meta import Condition, ObjectMeta
from largeforge.api.model import Model, rules
from largeforge.api.names import API_VERSION
from largeforge.api.uri import PvcUriText

RESERVED_ENGINE_ARGS = {
    "model": "spec.model.uri",
    "model-tag": "spec.model.uri",
    "served-model-name": "metadata.name",
    "max-model-len": "spec.engine.maxModelLen",
    "enable-lora": "spec.lora",
    "lora-modules": "an Expert",
    "max-loras": "spec.lora.maxLoras",
    "max-lora-rank": "spec.lora.maxLoraRank",
    "max-cpu-loras": "spec.lora.maxCpuLoras",
    "tensor-parallel-size": "spec.compute.gpusPerReplica",
    "shutdown-timeout": "LargeForge",
    "trust-remote-code": "LargeForge (remote code is refused)",
    "api-key": "LargeForge",
    "host": "LargeForge",
    "port": "LargeForge",
    "uds": "LargeForge",
    "middleware": "LargeForge (code in the engine is refused)",
    "config": "LargeForge (files of arguments are refused)",
    "logits-processors": "LargeForge (code in the engine is refused)",
    "tool-parser-plugin": "LargeForge (code in the engine is refused)",
    "reasoning-parser-plugin": "LargeForge (code in the engine is refused)",
    "worker-cls": "LargeForge (code in the engine is refused)",
    "worker-extension-cls": "LargeForge (code in the engine is refused)",
    "scheduler-cls": "LargeForge (code in the engine is refused)",
    "allowed-local-media-path": "LargeForge (a client could read the pod's files, its key among them)",
    "load-format": "LargeForge (safetensors only)",
    "root-path": "LargeForge",
    "ssl-keyfile": "LargeForge",
    "ssl-certfile": "LargeForge",
}
"""Arguments of the engine that `extraArgs` may not set, and what sets them."""

_RESERVED = ", ".join(f"'{name}'" for name in sorted(RESERVED_ENGINE_ARGS))


class ServedModel(Model):
    """The base model."""

    uri: PvcUriText
    """`pvc://claim/path` of a folder with `config.json`, safetensors and a tokenizer."""


class Engine(Model):
    """How vLLM runs; the names are vLLM's."""

    max_model_len: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """The longest prompt and answer together, in tokens; none means the model's own limit."""
    extra_args: Annotated[
        dict[
            Annotated[str, Field(max_length=64)],
            Annotated[str, Field(max_length=1024)],
        ],
        Field(
            max_length=32,
            json_schema_extra={
                "x-kubernetes-validations": [
                    {
                        "rule": "self.all(k, k.matches('^[a-z][a-z0-9-]*$'))",
                        "message": "keys are flags of the engine without dashes before them, for example max-num-seqs",
                    },
                    {
                        # Python's argparse takes any unambiguous beginning of a flag for the flag itself;
                        # reasoning-parser is a whole flag, and the beginning of one that is refused.
                        "rule": f"self.all(k, (k == 'reasoning-parser' || ![{_RESERVED}].exists(r, r.startsWith(k)))"
                        " && !k.startsWith('ssl-'))",
                        "message": "this flag is set by LargeForge or by a field of its own (maxModelLen, lora,"
                        " compute), or begins one that is; remove it from extraArgs. Refused are: "
                        + ", ".join(sorted(RESERVED_ENGINE_ARGS)),
                    },
                ]
            },
        ),
    ] = {}
    """Other flags of the engine, rendered as `--flag=value`, and as `--flag` where the value is empty."""


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

    gpus_per_replica: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each replica; 0 serves on the CPU. Also the tensor parallel size."""
    gpu_resource: Annotated[str, Field(min_length=1, max_length=128)] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the container."""
    pod_template: PodTemplate = PodTemplate()
    """What is laid over the pod."""


class ServiceOptions(Model):
    """The Service in front of the engine."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """The type of the Service; clients ordinarily come through the router, which needs ClusterIP only."""
    annotations: Annotated[
        dict[Annotated[str, Field(max_length=316)], Annotated[str, Field(max_length=1024)]], Field(max_length=32)
    ] = {}
    """Annotations of the Service, for example a cloud load balancer's."""


class InferenceServiceSpec(Model):
    """What is served, how, and on what."""

    model: ServedModel
    """The base model."""
    replicas: Annotated[int, Field(ge=0, le=64)] = 1
    """Pods that serve."""
    engine: Engine = Engine()
    """How vLLM runs."""
    lora: Lora | None = None
    """Adapters; without it only the base is served."""
    compute: ServingCompute = ServingCompute()
    """What each replica gets."""
    service: ServiceOptions = ServiceOptions()
    """The Service in front of the engine."""


class ServingPod(Model):
    """One pod of the service, and whether it has answered."""

    name: Annotated[str, Field(max_length=253)]
    """The pod's name."""
    uid: Annotated[str, Field(max_length=64)]
    """The pod's uid."""
    container_id: Annotated[str, Field(max_length=256)] = Field(default="", alias="containerID")
    """The container that answered; a new container has to answer again."""
    proven: bool = False
    """Whether it answered a generation."""
    error: Annotated[str, Field(max_length=1024)] | None = None
    """Why not, where it did not."""


class InferenceServiceStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Ready; Reconciling and Stalled while they are true."""
    url: Annotated[str, Field(max_length=256)] | None = None
    """The engine's address inside the cluster; it wants the engine's key, clients go through the router."""
    replicas: int = 0
    """Pods that exist."""
    ready_replicas: int = 0
    """Pods that are ready and have answered a generation."""
    summary: Annotated[str, Field(max_length=32)] = ""
    """`readyReplicas/spec.replicas`, for the column."""
    adapters: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=1024)] = []
    """Experts whose adapters are placed here."""
    adapter_count: int = 0
    """Their number, for the column."""
    pods: Annotated[list[ServingPod], Field(max_length=256)] = []
    """One entry for each pod."""


class InferenceService(Model):
    """One base model served by vLLM, with adapters loaded while it runs."""

    model_config = rules(
        (
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: at most 40 characters, a letter first, then letters, digits and '-'"
            " (for example qwen2-5-7b, not qwen2.5-7b)",
        ),
        ("self.metadata.name != 'auto'", "metadata.name: 'auto' is the router's own name; choose another"),
    )

    api_version: str = API_VERSION
    kind: Literal["InferenceService"] = "InferenceService"
    metadata: ObjectMeta
    spec: InferenceServiceSpec
    """What is served, how, and on what."""
    status: InferenceServiceStatus = InferenceServiceStatus()
    """What was observed."""
