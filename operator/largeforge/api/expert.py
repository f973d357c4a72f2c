"""`Expert`: a model or adapter that answers for some domains."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import InferenceServiceRef, Metric
from largeforge.api.meta import Condition, ObjectMeta
from largeforge.api.model import LargeForgeName, Model, rules
from largeforge.api.names import API_VERSION
from largeforge.api.routing import Routing
from largeforge.api.uri import PvcUriText


class Defaults(Model):
    """What the router puts into a request where the client left it out; the names are OpenAI's and vLLM's."""

    model_config = rules(("!has(self.topP) || self.topP > 0.0", "topP must be above 0, for example 0.9"))

    system_prompt: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """The system message of a chat that has none."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """`temperature`: 0 is greedy."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """`top_p`: the share of the likeliest tokens that are sampled from."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """`top_k`: the number of the likeliest tokens that are sampled from."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] | None = None
    """The longest answer in tokens, where the client sets neither `max_tokens` nor `max_completion_tokens`."""


class Limits(Model):
    """What each replica of the router lets through to this expert."""

    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests at a time for each replica; more wait a moment in a bounded queue, then get 429 with Retry-After."""
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """From a request's arrival to the end of its answer; what lasts longer is cut."""


class Access(Model):
    """Who may use this expert."""

    clients: Annotated[
        list[
            Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
        ],
        Field(max_length=128, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = []
    """Names of clients (entries of the router's Secret of keys); none means all. Others do not see the expert."""


class SourceRef(Model):
    """The object that makes the artifact."""

    kind: Literal["FineTuneJob"]
    """Its kind."""
    name: LargeForgeName
    """Its name, in the same namespace; the newest complete run is followed."""


class Artifact(Model):
    """Where the files are."""

    uri: PvcUriText
    """`pvc://claim/path` of the model."""


class ExpertSpec(Model):
    """What serves, where it comes from, and which requests it gets."""

    model_config = rules(
        (
            "self.type != 'Adapter' || (has(self.sourceRef) && !has(self.artifact))",
            "an expert of type Adapter names its FineTuneJob: set sourceRef {kind: FineTuneJob, name},"
            " leave out artifact",
        ),
        (
            "self.type != 'Model' || (has(self.artifact) && !has(self.sourceRef))",
            "an expert of type Model names its files: set artifact.uri (the service's model.uri), leave out sourceRef",
        ),
    )

    type: Annotated[
        Literal["Adapter", "Model"],
        Field(
            json_schema_extra={
                "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "type cannot change; make another Expert"}
                ]
            }
        ),
    ]
    """Adapter: a LoRA adapter on the service's model. Model: the service's model itself."""
    source_ref: SourceRef | None = None
    """The job whose newest complete run is served (type Adapter)."""
    artifact: Artifact | None = None
    """The model's files (type Model); equal to the service's `model.uri`."""
    inference_service_ref: InferenceServiceRef
    """The InferenceService that serves it."""
    version: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None = None
    """A version for people, shown in the columns."""
    routing: Routing = Routing()
    """Which requests this expert gets."""
    defaults: Defaults = Defaults()
    """What the router puts into a request where the client left it out."""
    limits: Limits = Limits()
    """What each replica of the router lets through to this expert."""
    access: Access = Access()
    """Who may use this expert."""


class Resolved(Model):
    """What `spec` means at the moment: the wish, not yet what is served."""

    uri: Annotated[str, Field(max_length=512)]
    """The artifact."""
    digest: Annotated[str, Field(max_length=128)] = ""
    """SHA-256 of the adapter's weights, in hex."""
    rank: int | None = None
    """The adapter's LoRA rank."""
    base: Annotated[str, Field(max_length=512)] = ""
    """The base that the adapter was trained on."""
    engine_name: Annotated[str, Field(max_length=128)]
    """The name under which the engine knows it: `<expert>-<first 8 of the digest>`, or the service's name."""


class PodPlacement(Model):
    """Whether one pod of the service has it."""

    name: Annotated[str, Field(max_length=253)]
    """The pod's name."""
    uid: Annotated[str, Field(max_length=64)]
    """The pod's uid; EndpointSlices carry it as `targetRef.uid`."""
    container_id: Annotated[str, Field(max_length=256)] = Field(default="", alias="containerID")
    """The container that loaded it; another container of the same pod has to load it again."""
    loaded: bool = False
    """Whether it is loaded there and answered a generation."""
    error: Annotated[str, Field(max_length=1024)] | None = None
    """The engine's own words, where it is not."""


class Placement(Model):
    """Where it is served; the router sends requests only here, under this name."""

    engine_name: Annotated[str, Field(max_length=128)]
    """The model name that requests carry to the engine."""
    resolved: Resolved | None = None
    """What is served: `status.resolved` when `engineName` was chosen; a pod that restarts loads it from here."""
    desired: int
    """Pods of the service that should have it."""
    loaded: int
    """Pods that have it and answered."""
    summary: Annotated[str, Field(max_length=32)]
    """`loaded/desired`, for the column."""
    pods: Annotated[list[PodPlacement], Field(max_length=256)] = []
    """One entry for each pod."""


class Lineage(Model):
    """Where it comes from."""

    fine_tune_job: Annotated[str, Field(max_length=63)] | None = None
    """The FineTuneJob that made it."""
    run: int | None = None
    """The number of its run."""
    dataset_digest: Annotated[str, Field(max_length=128)] | None = None
    """SHA-256 of the training data."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries that trained it."""


class ExpertStatus(Model):
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
    """ArtifactResolved, Compatible, Loaded, Probed and Ready."""
    resolved: Resolved | None = None
    """What `spec` means at the moment."""
    placement: Placement | None = None
    """Where it is served."""
    lineage: Lineage | None = None
    """Where it comes from."""
    last_probe_time: datetime | None = None
    """When a pod last answered the probe."""


class Expert(Model):
    """A model or adapter that answers for some domains: resolved, loaded, proven to answer, routable."""

    model_config = rules(
        (
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: at most 40 characters, a letter first, then letters, digits and '-'"
            " (for example qwen2-5-7b, not qwen2.5-7b)",
        ),
        ("self.metadata.name != 'auto'", "metadata.name: 'auto' is the router's own name; choose another"),
    )

    api_version: str = API_VERSION
    kind: Literal["Expert"] = "Expert"
    metadata: ObjectMeta
    spec: ExpertSpec
    """What serves, where it comes from, and which requests it gets."""
    status: ExpertStatus = ExpertStatus()
    """What was observed."""
