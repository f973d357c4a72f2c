"""`Expert.status`: what was observed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import ProbeRecord
from largeforge.api.inspect import AdapterFacts
from largeforge.api.meta import Conditions
from largeforge.api.model import Model
from largeforge.api.routerreport import Overlap


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
    base_commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of a base of the hub."""
    base_is_written: bool = False
    """Whether `base` is no more than the name in adapter_config.json."""
    does_nothing: bool = False
    """Whether the adapter leaves every answer as the base's, by its files."""
    unsupported: Annotated[str, Field(max_length=512)] | None = None
    """What in it no engine can serve as an adapter."""
    probes: Annotated[list[ProbeRecord], Field(max_length=3)] = []
    """What the training measured of base and result: `Probed` compares it with what engines answer."""
    engine_name: Annotated[str, Field(max_length=128)]
    """The name under which the engine knows it: `<expert>-<first 8 of the digest>`, or the service's name."""


class DeliveryRecord(Model):
    """The copy of an adapter that does not lie in the service's store."""

    store: Annotated[str, Field(max_length=512)]
    """`lora.store` of the service that it is brought to."""
    uri: Annotated[str, Field(max_length=640)]
    """The artifact that is brought there."""
    digest: Annotated[str, Field(max_length=128)]
    """Its digest; the copy lies in `<store>/<digest>`."""
    whole: bool = False
    """Whether it is there."""
    since: datetime | None = None
    """When an engine did not find it any more; it is made again."""


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
    service: Annotated[str, Field(max_length=63)] = ""
    """The InferenceService whose pods these are."""
    probe: Annotated[str, Field(max_length=8)] = ""
    """The beginning of the digest of the `spec.probe` that they have passed; empty without one."""
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
    quantize_job: Annotated[str, Field(max_length=63)] | None = None
    """The QuantizeJob that made it."""
    run: int | None = None
    """The number of its run."""
    dataset_digest: Annotated[str, Field(max_length=128)] | None = None
    """SHA-256 of the training data."""
    base_commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of a base of the hub."""
    parent: Annotated[str, Field(max_length=640)] | None = None
    """The adapter that the training went on from."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries that trained it."""


class Evaluation(Model):
    """What the job measured of it."""

    gate: Annotated[str, Field(max_length=32)] = ""
    """The gate's verdict, where the job has one."""
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    """The job's figures."""


class RoutingStatus(Model):
    """How well its examples tell it from the other Experts, as a router of its namespace has learnt them."""

    examples: int = 0
    """Its examples that were learnt."""
    self_accuracy: Annotated[str, Field(max_length=16)] | None = None
    """The share of its examples that are taken for its own when each is left out in turn."""
    overlaps: Annotated[list[Overlap], Field(max_length=16)] = []
    """The Experts that others of its examples are taken for."""


class ExpertStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    conditions: Conditions = []
    """ArtifactResolved, Compatible, Loaded, Probed, Distinct and Ready; Reconciling while it is true."""
    source: Annotated[str, Field(max_length=640)] = ""
    """Where it comes from, in one word for the column."""
    resolved: Resolved | None = None
    """What `spec` means at the moment."""
    inspection: AdapterFacts | None = None
    """What was found in the folder of `spec.artifact.uri`."""
    delivery: DeliveryRecord | None = None
    """The copy in the service's store, where the artifact lies elsewhere."""
    placement: Placement | None = None
    """Where it is served."""
    endpoint: Annotated[str, Field(max_length=512)] | None = None
    """The address of an External expert that the router has found answering."""
    lineage: Lineage | None = None
    """Where it comes from."""
    evaluation: Evaluation | None = None
    """What the job measured of it."""
    routing: RoutingStatus | None = None
    """How well its examples tell it from the other Experts."""
    last_probe_time: datetime | None = None
    """When it last answered the probe."""
