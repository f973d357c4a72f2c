"""`FineTuneJob`: what to train, on what data, with what hardware."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import InferenceServiceRef, ObjectRef, PullSecret, SecretRef
from largeforge.api.compute import TrainingCompute
from largeforge.api.datasets import DataPolicy, DatasetSource, TrainDataset
from largeforge.api.expert import Access, Defaults, DeletionPolicy, Limits, Probe, Stage
from largeforge.api.extraargs import ExtraArgs
from largeforge.api.finetunejobstatus import FineTuneJobStatus
from largeforge.api.meta import ObjectMeta
from largeforge.api.model import LargeForgeName, Model, SubdomainName, rules
from largeforge.api.names import API_VERSION
from largeforge.api.routing import Routing
from largeforge.api.training import (
    DEFAULT_GLOBAL_BATCH_SIZE,
    DEFAULT_LEARNING_RATE,
    MAX_MICRO_BATCH,
    Checkpoint,
    Gate,
    Peft,
    Tracking,
    Training,
)
from largeforge.api.uri import ModelUriText, PvcUriText, Revision


class FineTuneJobRef(Model):
    """A run of another FineTuneJob of the same namespace."""

    name: LargeForgeName
    """The job's name."""
    run: Annotated[int, Field(ge=1)] | None = None
    """The number of its run; by default the newest complete one when this run begins."""


class Base(Model):
    """The model to start from."""

    model_config = rules(
        (
            "[has(self.uri), has(self.fineTuneJobRef), has(self.expertRef)].filter(x, x).size() == 1",
            "base needs exactly one of uri, fineTuneJobRef and expertRef",
        ),
        (
            "(has(self.uri) && self.uri.startsWith('hf://')) || !(has(self.revision) || has(self.secretRef))",
            "revision and secretRef belong to an hf:// base; remove them",
        ),
    )

    uri: ModelUriText | None = None
    """`hf://org/repo`, or `pvc://claim/path` of a folder with `config.json`, safetensors and a tokenizer."""
    revision: Revision | None = None
    """Branch, tag or commit of an hf:// model; by default its main branch. Status shows the commit."""
    secret_ref: SecretRef | None = None
    """The Secret with the hub's token, for a private or gated model."""
    trust_remote_code: bool = False
    """Runs the Python code that comes with the model; only in namespaces that the chart lists."""
    fine_tune_job_ref: FineTuneJobRef | None = None
    """Goes on from a run of another FineTuneJob: the same adapter is trained further, or the whole model."""
    expert_ref: ObjectRef | None = None
    """Goes on from what an Expert serves."""


class Cache(Model):
    """Where downloads are kept."""

    uri: PvcUriText
    """`pvc://claim/path`; models and data sets of the hub are put there once, before a GPU is held."""


class Output(Model):
    """Where the result goes."""

    uri: PvcUriText
    """`pvc://claim/path` of a folder; each run writes a sub-folder of its own and never overwrites one."""
    merge: bool = False
    """Writes a whole model, the adapter merged into its base, instead of the adapter."""


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
    defaults: Defaults = Defaults()
    """What the router puts into a request where the client left it out."""
    limits: Limits = Limits()
    """What each replica of the router lets through to it."""
    access: Access = Access()
    """Who may use it."""
    stage: Stage = "Development"
    """Where it stands in its life."""
    probe: Probe | None = None
    """A question that it must be able to answer before it gets requests."""
    deletion_policy: DeletionPolicy = "Retain"
    """What becomes of the artifact when the Expert is deleted."""


class Publish(Model):
    """What to do with a complete run."""

    expert: PublishedExpert
    """The Expert to make."""


class FineTuneJobSpec(Model):
    """What to train, on what data, with what hardware."""

    model_config = rules(
        (
            "!has(self.publish) || (self.peft.type == 'LoRA' && !self.output.merge)",
            "only an adapter can be published as an Expert; remove publish, or set peft.type: LoRA without"
            " output.merge",
        ),
        (
            "!has(self.publish) || !(self.peft.useDora || has(self.peft.modulesToSave))",
            "engines cannot serve an adapter with DoRA or modulesToSave; remove publish and set output.merge: true",
        ),
        (
            "!self.output.merge || self.peft.type == 'LoRA'",
            "output.merge merges an adapter; remove it, or set type: LoRA",
        ),
        (
            "self.compute.gpusPerNode > 0 || self.training.precision != 'FP16'",
            "training.precision FP16 needs a GPU; use FP32, BF16 or Auto with compute.gpusPerNode: 0",
        ),
        (
            "self.compute.gpusPerNode > 0 || !has(self.training.attnImplementation)"
            " || !self.training.attnImplementation.startsWith('flash_attention')",
            "training.attnImplementation flash_attention needs a GPU; use sdpa or eager with compute.gpusPerNode: 0",
        ),
        (
            "!has(self.training.globalBatchSize) || self.training.globalBatchSize %"
            " (has(self.compute.processesPerNode) ? self.compute.processesPerNode"
            " : (self.compute.gpusPerNode > 0 ? self.compute.gpusPerNode : 1)) == 0",
            "training.globalBatchSize must be divisible by the number of ranks (gpusPerNode or processesPerNode)",
        ),
        (
            "!(has(self.evalDataset) && has(self.evalSplitRatio) && self.evalSplitRatio > 0.0)",
            "set evalDataset or evalSplitRatio, not both",
        ),
        (
            "!(has(self.gate) || has(self.training.evalSteps)) || has(self.evalDataset)"
            " || (has(self.evalSplitRatio) && self.evalSplitRatio > 0.0)",
            "gate and training.evalSteps measure held-out rows; set evalDataset, or evalSplitRatio, for example 0.02",
        ),
    )

    method: Literal["SFT"]
    """The method: SFT is supervised fine-tuning with TRL's SFTTrainer."""
    base: Base
    """The model to start from."""
    peft: Peft = Peft()
    """How many weights are trained."""
    datasets: Annotated[list[TrainDataset], Field(min_length=1, max_length=16)]
    """The training data, concatenated in this order and shuffled with the seed."""
    eval_dataset: DatasetSource | None = None
    """The rows to measure the loss on; instead of evalSplitRatio."""
    eval_split_ratio: Annotated[float, Field(ge=0, le=0.5)] = 0
    """The share of the rows that is held out to measure the loss on; 0 measures nothing."""
    data_policy: DataPolicy = DataPolicy()
    """What is done about rows that are wrong or too long."""
    training: Training = Training()
    """The hyper-parameters."""
    extra_args: ExtraArgs = {}
    """More fields of TRL's SFTConfig, by their own names, for example `neftune_noise_alpha: 5`; those that a field of
    this object sets are refused."""
    compute: TrainingCompute = TrainingCompute()
    """What the run gets."""
    cache: Cache | None = None
    """Where downloads from the hub are kept; without it they go to the pod's own disk, and again for each attempt."""
    checkpoint: Checkpoint = Checkpoint()
    """When the state is saved, so that the next attempt goes on from there."""
    output: Output
    """Where the result goes."""
    gate: Gate | None = None
    """What the result has to reach before it is published."""
    publish: Publish | None = None
    """What to do with a complete run."""
    tracking: Tracking | None = None
    """Where metrics are sent, beside status."""
    suspend: bool = False
    """Stops the run and frees what it holds; false goes on with a new attempt."""
    backoff_limit: Annotated[int, Field(ge=0, le=20)] = 3
    """How many more attempts a run gets after one that failed; errors of the user and disruptions do not count."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """How long a run may last over all its attempts, not counting the time that it is suspended; then it has failed."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """When the Jobs and pods of a run that ended are removed; the artifact and the record in status stay."""
    rerun_policy: Literal["OnSpecChange", "Never"] = "OnSpecChange"
    """Whether a change of a field that decides the result starts a new run, or is only reported."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-z0-9][-A-Za-z0-9._:/@]*$")] | None = None
    """The trainer image; by default the chart's."""
    image_pull_secrets: Annotated[list[PullSecret], Field(max_length=8)] = []
    """Secrets with the image registry's credentials."""
    service_account_name: SubdomainName | None = None
    """The pods' service account: `default`, or one that the chart lists; the token is not mounted."""

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
    def strategy(self) -> Literal["Single", "DDP", "FSDP"]:
        """The effective strategy."""
        if self.compute.strategy != "Auto":
            return self.compute.strategy
        if self.compute.processes == 1:
            return "Single"
        return "DDP" if self.peft.type == "LoRA" else "FSDP"

    @property
    def evaluates(self) -> bool:
        """Whether rows are held out."""
        return self.eval_dataset is not None or self.eval_split_ratio > 0

    @property
    def _share(self) -> int:
        """A rank's part of the global batch, in samples; the default batch is rounded up to a whole share."""
        ranks = self.compute.processes
        chosen = self.training.global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE
        return -(-chosen // ranks)


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
