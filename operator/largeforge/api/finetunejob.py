"""`FineTuneJob`: what to train, on what data, with what hardware."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import (
    ErrorDetail,
    InferenceServiceRef,
    Metric,
    ObjectRef,
    PodTemplate,
    ResourceRequirements,
)
from largeforge.api.expert import Routing
from largeforge.api.meta import Condition, ObjectMeta
from largeforge.api.model import LargeForgeName, Model, rules
from largeforge.api.names import API_VERSION
from largeforge.api.uri import DatasetUriText, PvcUriText

DEFAULT_LORA_RANK = 16
DEFAULT_GLOBAL_BATCH_SIZE = 32
DEFAULT_TRAIN_EPOCHS = 1.0
DEFAULT_LEARNING_RATE = {"LoRA": 2e-4, "None": 2e-5}
"""LoRA wants about ten times the rate of full weights (TRL's own recipes use the same pair)."""
MAX_MICRO_BATCH = 8
"""The largest per-device batch that is chosen for a global batch size; the rest is accumulation."""


class Base(Model):
    """The model to start from."""

    uri: PvcUriText
    """`pvc://claim/path` of a folder with `config.json`, safetensors and a tokenizer."""


class Peft(Model):
    """How many weights are trained; the names are PEFT's."""

    model_config = rules(
        (
            "self.type != 'None' || !(has(self.r) || has(self.loraAlpha) || has(self.loraDropout)"
            " || has(self.targetModules))",
            "r, loraAlpha, loraDropout and targetModules belong to type LoRA; remove them or set type: LoRA",
        ),
    )

    type: Literal["LoRA", "None"] = "LoRA"
    """LoRA trains an adapter beside the frozen base; None trains all weights."""
    r: Annotated[int, Field(ge=1, le=512)] | None = None
    """The adapter's rank; by default 16. At most the service's `lora.maxLoraRank` to be served."""
    lora_alpha: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The adapter's scale; by default twice the rank."""
    lora_dropout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """Dropout in the adapter; by default 0.05."""
    target_modules: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)] | None
    ) = None
    """Names of the modules that get an adapter; by default [all-linear]."""

    @property
    def rank(self) -> int:
        """The effective rank."""
        return self.r if self.r is not None else DEFAULT_LORA_RANK

    @property
    def alpha(self) -> int:
        """The effective scale."""
        return self.lora_alpha if self.lora_alpha is not None else 2 * self.rank

    @property
    def dropout(self) -> float:
        """The effective dropout."""
        return self.lora_dropout if self.lora_dropout is not None else 0.05

    @property
    def modules(self) -> list[str]:
        """The effective target modules."""
        return self.target_modules if self.target_modules is not None else ["all-linear"]


class Dataset(Model):
    """One source of training data."""

    uri: DatasetUriText
    """`pvc://claim/path` or `configmap://name/key` of a jsonl file: rows with `messages`, or `prompt` and
    `completion`."""


class Training(Model):
    """The hyper-parameters; the names are TRL's and transformers'."""

    model_config = rules(
        (
            "!(has(self.maxSteps) && has(self.numTrainEpochs))",
            "set maxSteps or numTrainEpochs, not both",
        ),
        (
            "!(has(self.globalBatchSize) && (has(self.perDeviceTrainBatchSize)"
            " || has(self.gradientAccumulationSteps)))",
            "set globalBatchSize, or perDeviceTrainBatchSize with gradientAccumulationSteps, not both",
        ),
        (
            "!has(self.gradientAccumulationSteps) || has(self.perDeviceTrainBatchSize)",
            "gradientAccumulationSteps needs perDeviceTrainBatchSize beside it",
        ),
        # Not a minimum of the schema: the API server compares a whole number with the minimum's whole part.
        ("!has(self.learningRate) || self.learningRate > 0.0", "learningRate must be above 0, for example 2e-4"),
        ("!has(self.numTrainEpochs) || self.numTrainEpochs > 0.0", "numTrainEpochs must be above 0, for example 1"),
    )

    max_steps: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Optimizer steps; instead of numTrainEpochs."""
    num_train_epochs: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Passes over the data; by default 1."""
    learning_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """The peak learning rate, for example 2e-4; by default 2e-4 with LoRA and 2e-5 for all weights."""
    global_batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = None
    """Samples for each optimizer step over all ranks; by default 32. Divisible by the number of ranks."""
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Samples of one rank in one forward pass; instead of globalBatchSize."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Forward passes for each optimizer step; by default 1 beside perDeviceTrainBatchSize."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """The longest sample in tokens; longer ones are cut."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 42
    """The seed of shuffling, splitting, dropout and the adapter's start."""
    precision: Literal["Auto", "BF16", "FP16", "FP32"] = "Auto"
    """The type of the computation; Auto is BF16 on GPUs that have it, FP32 on a CPU."""


class TrainingCompute(Model):
    """What the run gets."""

    model_config = rules(
        (
            "self.gpusPerNode == 0 || !has(self.processesPerNode) || self.processesPerNode == self.gpusPerNode",
            "processesPerNode is the number of GPUs where there are any; remove it, or set gpusPerNode: 0",
        ),
    )

    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of the pod, one rank for each; 0 trains on the CPU."""
    gpu_resource: Annotated[str, Field(min_length=1, max_length=128)] = "nvidia.com/gpu"
    """The extended resource that a GPU is."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] | None = None
    """Ranks on a CPU; by default 1."""
    resources: ResourceRequirements = ResourceRequirements()
    """CPU and memory of the container."""
    pod_template: PodTemplate = PodTemplate()
    """What is laid over the pod."""

    @property
    def processes(self) -> int:
        """The number of ranks."""
        if self.processes_per_node is not None:
            return self.processes_per_node
        return max(self.gpus_per_node, 1)


class Output(Model):
    """Where the result goes."""

    uri: PvcUriText
    """`pvc://claim/path` of a folder; each run writes a sub-folder of its own and never overwrites one."""


class PublishedExpert(Model):
    """The Expert to make of a complete run."""

    model_config = rules(("self.name != 'auto'", "'auto' is the router's own name; choose another"))

    name: LargeForgeName
    """The Expert's name; one that somebody else holds is left alone, and the condition Published says so."""
    inference_service_ref: InferenceServiceRef
    """The InferenceService that serves it."""
    version: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] | None = None
    """A version for people."""
    routing: Routing = Routing()
    """Which requests it gets."""


class Publish(Model):
    """What to do with a complete run."""

    expert: PublishedExpert
    """The Expert to make."""


class FineTuneJobSpec(Model):
    """What to train, on what data, with what hardware."""

    model_config = rules(
        (
            "!has(self.publish) || self.peft.type == 'LoRA'",
            "only an adapter can be published as an Expert; remove publish, or set peft.type: LoRA",
        ),
        (
            "self.compute.gpusPerNode > 0 || self.training.precision != 'FP16'",
            "training.precision FP16 needs a GPU; use FP32, BF16 or Auto with compute.gpusPerNode: 0",
        ),
        (
            "!has(self.training.globalBatchSize) || self.training.globalBatchSize %"
            " (has(self.compute.processesPerNode) ? self.compute.processesPerNode"
            " : (self.compute.gpusPerNode > 0 ? self.compute.gpusPerNode : 1)) == 0",
            "training.globalBatchSize must be divisible by the number of ranks (gpusPerNode or processesPerNode)",
        ),
    )

    method: Literal["SFT"]
    """The method: SFT is supervised fine-tuning with TRL's SFTTrainer."""
    base: Base
    """The model to start from."""
    peft: Peft = Peft()
    """How many weights are trained."""
    datasets: Annotated[list[Dataset], Field(min_length=1, max_length=16)]
    """The training data, concatenated in this order and shuffled with the seed."""
    eval_split_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0
    """The share of the rows that is held out to measure the loss on; 0 measures nothing."""
    training: Training = Training()
    """The hyper-parameters."""
    compute: TrainingCompute = TrainingCompute()
    """What the run gets."""
    output: Output
    """Where the result goes."""
    publish: Publish | None = None
    """What to do with a complete run."""
    suspend: bool = False
    """Stops the run and frees what it holds; false goes on with a new attempt."""
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """How many more attempts a run gets after one that failed; errors of the user and disruptions do not count."""

    @property
    def learning_rate(self) -> float:
        """The effective peak learning rate."""
        chosen = self.training.learning_rate
        return chosen if chosen is not None else DEFAULT_LEARNING_RATE[self.peft.type]

    @property
    def per_device_train_batch_size(self) -> int:
        """The effective micro batch: the largest divisor of a rank's share that is at most `MAX_MICRO_BATCH`."""
        if self.training.per_device_train_batch_size is not None:
            return self.training.per_device_train_batch_size
        share = self._share
        return max(size for size in range(1, min(share, MAX_MICRO_BATCH) + 1) if share % size == 0)

    @property
    def gradient_accumulation_steps(self) -> int:
        """The effective number of forward passes for each optimizer step."""
        if self.training.per_device_train_batch_size is not None:
            return self.training.gradient_accumulation_steps or 1
        return self._share // self.per_device_train_batch_size

    @property
    def _share(self) -> int:
        """A rank's part of the global batch, in samples; the default batch is rounded up to a whole share."""
        ranks = self.compute.processes
        chosen = self.training.global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE
        return -(-chosen // ranks)


class RunRecord(Model):
    """One run and its newest attempt; the record outlives its children."""

    number: int
    """Counts the runs of this object from 1; a change of the fields that decide the result starts the next."""
    digest: Annotated[str, Field(max_length=64)]
    """SHA-256 over the fields that decide the result, defaults left out."""
    attempt: int = 1
    """Counts the attempts of this run from 1."""
    failures: int = 0
    """Attempts of this run that count against `backoffLimit`."""
    job_name: Annotated[str, Field(max_length=63)] = ""
    """The Job of the newest attempt."""
    outcome: Literal["Succeeded", "Failed"] | None = None
    """How the run ended; none while it goes on."""
    start_time: datetime | None = None
    """When its first attempt was made."""
    completion_time: datetime | None = None
    """When it ended."""


class DatasetSummary(Model):
    """What the run read."""

    digest: Annotated[str, Field(max_length=64)]
    """SHA-256 over the rows."""
    samples: int
    """Rows trained on."""
    eval_samples: int = 0
    """Rows held out."""


class ArtifactRecord(Model):
    """What the run wrote."""

    kind: Literal["Adapter", "Model"]
    """An adapter, or a whole model."""
    uri: Annotated[str, Field(max_length=640)]
    """Its folder."""
    digest: Annotated[str, Field(max_length=64)]
    """SHA-256 over its weights."""
    size_bytes: int
    """The size of its files."""
    rank: int | None = None
    """The adapter's rank."""
    base: Annotated[str, Field(max_length=512)]
    """What it was trained from."""


class RunFacts(Model):
    """What was in force, read back from the run."""

    strategy: Annotated[str, Field(max_length=32)]
    """Single or DDP."""
    precision: Annotated[str, Field(max_length=16)]
    """BF16, FP16 or FP32."""
    ranks: int
    """Processes that trained."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries."""


class FineTuneJobStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    phase: Annotated[str, Field(max_length=32)] = ""
    """One word for the column, derived from the conditions: Pending, Running, Complete, Failed or Suspended."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """The one thing that it waits for, or how it ended."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Complete, Failed, Suspended, Stalled; StorageReachable, DatasetValid, Running, Published."""
    run: RunRecord | None = None
    """The newest run."""
    history: Annotated[list[RunRecord], Field(max_length=10)] = []
    """Earlier runs, the newest first."""
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    """What the run measured: train_loss, eval_loss_before, eval_loss and others."""
    loss: Annotated[str, Field(max_length=32)] | None = None
    """The held-out loss where one was measured, else the training loss; for the column."""
    dataset: DatasetSummary | None = None
    """What the run read."""
    artifact: ArtifactRecord | None = None
    """What the newest complete run wrote."""
    artifact_run: int | None = None
    """The number of the run that wrote it."""
    resolved: RunFacts | None = None
    """What was in force, read back from the run."""
    expert_ref: ObjectRef | None = None
    """The Expert that was made."""
    error: ErrorDetail | None = None
    """Why the newest run failed."""


class FineTuneJob(Model):
    """Fine-tunes a model: what to train, on what data, with what hardware, and what to do with the result."""

    model_config = rules(
        (
            "size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name: at most 40 characters, a letter first, then letters, digits and '-'"
            " (for example qwen2-5-7b, not qwen2.5-7b)",
        ),
    )

    api_version: str = API_VERSION
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    metadata: ObjectMeta
    spec: FineTuneJobSpec
    """What to train, on what data, with what hardware."""
    status: FineTuneJobStatus = FineTuneJobStatus()
    """What was observed."""
