"""What is observed of an InferenceService."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from largeforge.api.inspect import ModelFacts
from largeforge.api.meta import Conditions
from largeforge.api.model import Model


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


class ServedModelStatus(ModelFacts):
    """The model that is served, and what its files say of it."""

    uri: Annotated[str, Field(max_length=512)]
    """Where it comes from."""
    max_model_len: int | None = None
    """The longest prompt and answer together, in tokens: engine.maxModelLen, or the model's own limit."""


class Warmup(Model):
    """One measured request, and the time that the engine took to start."""

    ttft_ms: int
    """Milliseconds from the request to its first token."""
    tokens_per_second: Annotated[str, Field(max_length=16)]
    """Tokens of one request in a second, after the first."""
    start_seconds: int | None = None
    """Seconds from the start of the newest container to its readiness."""
    cold_start_seconds: int | None = None
    """The same of the first container that served this model: what `cache` saves is the difference."""
    container_id: Annotated[str, Field(max_length=256)] = Field(default="", alias="containerID")
    """The container that was measured."""


class InferenceServiceStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    conditions: Conditions = []
    """Ready; Reconciling and Stalled while they are true."""
    url: Annotated[str, Field(max_length=256)] | None = None
    """The engine's address inside the cluster; it wants the engine's key, clients go through the router."""
    replicas: int = 0
    """Pods that exist."""
    ready_replicas: int = 0
    """Pods that are ready and have answered a generation."""
    summary: Annotated[str, Field(max_length=32)] = ""
    """Ready pods of the wanted ones, for the column."""
    selector: Annotated[str, Field(max_length=128)] = ""
    """The pods, as a label selector: what the scale subresource shows."""
    adapters: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=1024)] = []
    """Experts whose adapters are placed here."""
    adapter_count: int = 0
    """Their number, for the column."""
    pods: Annotated[list[ServingPod], Field(max_length=256)] = []
    """One entry for each pod."""
    model: ServedModelStatus | None = None
    """The model that is served."""
    fit: Annotated[str, Field(max_length=512)] | None = None
    """Weights, KV cache and adapters against the memory that there is."""
    warmup: Warmup | None = None
    """One measured request, and the time that the engine took to start."""
    autoscaler: Annotated[str, Field(max_length=64)] | None = None
    """The kind of the object that sets the number of pods: HorizontalPodAutoscaler or ScaledObject."""
