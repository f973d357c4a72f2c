"""`InferenceService`: one base model, served by vLLM, with adapters loaded while it runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import SecretRef
from largeforge.api.engine import Engine
from largeforge.api.inferenceservicestatus import InferenceServiceStatus
from largeforge.api.meta import ObjectMeta
from largeforge.api.model import LargeForgeName, Model, rules
from largeforge.api.names import API_VERSION
from largeforge.api.serving import (
    Autoscaling,
    Lora,
    Rollout,
    ServiceOptions,
    ServingCache,
    ServingCompute,
    ServingNetworkPolicy,
    Startup,
)
from largeforge.api.uri import ModelUriText, Revision


class ExpertRef(Model):
    """An Expert of the same namespace."""

    name: LargeForgeName
    """Its name."""


class ServedModel(Model):
    """The base model."""

    model_config = rules(
        ("has(self.uri) != has(self.expertRef)", "set either model.uri or model.expertRef"),
        (
            "!has(self.revision) || (has(self.uri) && self.uri.startsWith('hf://'))",
            "model.revision is of a repository of the hub; remove it, or write hf:// in model.uri",
        ),
        (
            "!has(self.secretRef) || [has(self.uri) ? self.uri : '', has(self.tokenizer) ? self.tokenizer : '']"
            ".exists(u, u.startsWith('hf://'))",
            "model.secretRef is a token of the hub; remove it, or write hf:// in model.uri",
        ),
    )

    uri: ModelUriText | None = None
    """`pvc://claim/path` of a folder with `config.json`, safetensors and a tokenizer, or `hf://org/repo`."""
    expert_ref: ExpertRef | None = None
    """An Expert of type Model: what it resolves to is served, and a new version rolls out."""
    revision: Revision | None = None
    """Branch, tag or commit of an `hf://` model; by default the main branch. Pinned to a commit in status."""
    secret_ref: SecretRef | None = None
    """The hub's token."""
    tokenizer: ModelUriText | None = None
    """The tokenizer, `pvc://claim/path` or `hf://org/repo`, where it is not the model's own."""
    trust_remote_code: bool = False
    """Whether the model's own Python code runs in the engine; only in namespaces that the chart lists."""


ServedName = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._/:]*[A-Za-z0-9])?$")
]


class InferenceServiceSpec(Model):
    """What is served, how, and on what."""

    model_config = rules(
        (
            "self.compute.gpusPerReplica > 0 || !has(self.engine.gpuMemoryUtilization)",
            "engine.gpuMemoryUtilization needs a GPU; with gpusPerReplica: 0 set compute.resources.limits.memory",
        ),
        (
            "(!has(self.engine.tensorParallelSize) && !has(self.engine.pipelineParallelSize))"
            " || self.compute.gpusPerReplica > 0",
            "engine.tensorParallelSize and pipelineParallelSize need GPUs; remove them, or raise gpusPerReplica",
        ),
        (
            "!has(self.engine.tensorParallelSize) || self.compute.gpusPerReplica == 0"
            " || self.engine.tensorParallelSize * (has(self.engine.pipelineParallelSize)"
            " ? self.engine.pipelineParallelSize : 1) == self.compute.gpusPerReplica",
            "engine.tensorParallelSize times pipelineParallelSize must be compute.gpusPerReplica",
        ),
        (
            "!has(self.engine.pipelineParallelSize) || self.compute.gpusPerReplica"
            " % self.engine.pipelineParallelSize == 0",
            "compute.gpusPerReplica must be a multiple of engine.pipelineParallelSize",
        ),
    )

    model: ServedModel
    """The base model."""
    served_model_names: Annotated[
        list[ServedName],
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "set",
                "x-kubernetes-validations": [
                    {
                        "rule": "self.all(n, n != 'auto')",
                        "message": "servedModelNames: 'auto' is the router's own name; choose another",
                    }
                ],
            },
        ),
    ] = []
    """Names by which clients of the router reach the base; by default the name of this object. They are one space with
    the names of Experts: of equal names the older object has it."""
    replicas: Annotated[int, Field(ge=0, le=64)] = 1
    """Pods that serve; not looked at where autoscaling is set."""
    stopped: bool = False
    """No pods: the GPUs are free, and all else is kept. Requests are answered 404 or 503 meanwhile."""
    engine: Engine = Engine()
    """How vLLM runs."""
    lora: Lora | None = None
    """Adapters; without it only the base is served."""
    compute: ServingCompute = ServingCompute()
    """What each replica gets."""
    autoscaling: Autoscaling | None = None
    """The number of pods follows a metric."""
    rollout: Rollout = Rollout()
    """How a changed pod template replaces the pods."""
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = 50
    """Seconds that requests under way have to end in a pod that goes."""
    startup: Startup = Startup()
    """How long a pod may take to start."""
    cache: ServingCache | None = None
    """What a restarted engine finds again; without it, weights of the hub are downloaded by each new pod."""
    service: ServiceOptions = ServiceOptions()
    """The Service in front of the engine."""
    network_policy: ServingNetworkPolicy = ServingNetworkPolicy()
    """Who may connect to the engine."""


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

    @property
    def served_names(self) -> list[str]:
        """The names by which clients of the router reach the base."""
        return list(self.spec.served_model_names) or [self.metadata.name]

    @property
    def desired_replicas(self) -> int | None:
        """The pods that are wanted; None where an autoscaler decides."""
        if self.spec.stopped:
            return 0
        return None if self.spec.autoscaling is not None else self.spec.replicas
