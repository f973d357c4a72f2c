"""What is observed of a FineTuneJob."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import ErrorDetail, Metric, ObjectRef, SecretRef
from largeforge.api.meta import Conditions
from largeforge.api.model import Model

Uri = Annotated[str, Field(max_length=640)]
Digest = Annotated[str, Field(max_length=64)]
Line = Annotated[str, Field(max_length=512)]


class ResolvedBase(Model):
    """What `spec.base` came to when the run began; a run keeps it to its end."""

    uri: Uri
    """The model's own weights: `hf://` or `pvc://`."""
    adapter: Uri | None = None
    """The adapter that is trained further, where the run goes on from one."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of an hf:// model, found by preflight."""
    digest: Digest | None = None
    """SHA-256 over its weights, found by preflight; a commit stands for them."""
    secret_ref: SecretRef | None = None
    """The Secret with the hub's token, where the run that this one goes on from named one."""


class RunRecord(Model):
    """One run and its newest attempt; the record outlives its children."""

    number: int
    """Counts the runs of this object from 1; a change of the fields that decide the result starts the next."""
    digest: Digest
    """SHA-256 over the fields that decide the result, defaults left out."""
    stage: Literal["Preflight", "Training"] = "Preflight"
    """Preflight checks everything on a CPU; Training holds what `spec.compute` asks for."""
    attempt: int = 1
    """Counts the attempts of this stage from 1."""
    failures: int = 0
    """Attempts of this run that count against `backoffLimit`."""
    resumes: int = 0
    """Attempts that went on from a checkpoint."""
    job_name: Annotated[str, Field(max_length=63)] = ""
    """The Job of the newest attempt."""
    outcome: Literal["Succeeded", "Failed"] | None = None
    """How the run ended; none while it goes on."""
    start_time: datetime | None = None
    """When its first attempt was made."""
    completion_time: datetime | None = None
    """When it ended."""
    active_since: datetime | None = None
    """When it last began or was resumed; activeDeadlineSeconds counts from here, less activeSeconds."""
    active_seconds: int = 0
    """How long it was active before that."""
    base: ResolvedBase | None = None
    """What spec.base came to."""
    dataset_commits: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=17)] = []
    """The commits of the hf:// data sets in order (empty for the others), the evaluation data set last."""
    cached: bool = False
    """Whether preflight has put all that comes from the hub into `spec.cache`."""
    fields: Annotated[
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=8)]], Field(max_length=256)
    ] = {}
    """For each field that decides the result and is set, the beginning of its digest: what tells which has changed."""
    artifact: ArtifactRecord | None = None
    """What it wrote, whether or not the gate lets it out."""


class Progress(Model):
    """How far the newest attempt is; written by what the trainer posts, so it may be late, never wrong."""

    percent: int | None = None
    """Steps done, of a hundred."""
    step: int | None = None
    """Optimizer steps done."""
    total_steps: int | None = None
    """Optimizer steps in all."""
    epoch: Annotated[str, Field(max_length=16)] | None = None
    """Passes over the data."""
    eta_seconds: int | None = None
    """Estimated seconds to the end of training."""
    tokens_per_second: int | None = None
    """Tokens of all ranks for each second."""
    loss: Annotated[str, Field(max_length=16)] | None = None
    """The newest training loss; at the end the held-out loss where one was measured."""
    summary: Annotated[str, Field(max_length=32)] | None = None
    """For the column: «30% 120/400»."""
    eta: Annotated[str, Field(max_length=16)] | None = None
    """For the column: «12m»."""
    last_update_time: datetime | None = None
    """When the trainer posted it."""


class DatasetSummary(Model):
    """What preflight found in the data."""

    digest: Digest
    """SHA-256 over the rows that are trained and measured on."""
    samples: int
    """Rows trained on."""
    eval_samples: int = 0
    """Rows held out."""
    formats: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=17)] = []
    """The format of each data set, in order."""
    invalid: int = 0
    """Rows that are wrong."""
    dropped: int = 0
    """Rows left out: wrong ones, and too long ones where dataPolicy says so."""
    duplicates: int = 0
    """Rows that stand there more than once (counted without the first)."""
    empty_completions: int = 0
    """Rows whose answer is empty."""
    overlap: int = 0
    """Held-out rows that are also trained on."""
    tokens: int = 0
    """Tokens of all training rows, after truncation."""
    longest: int = 0
    """Tokens of the longest row, before truncation."""
    truncated_ratio: Annotated[str, Field(max_length=16)] = "0"
    """The share of the rows that is cut."""
    problems: Annotated[list[Line], Field(max_length=5)] = []
    """The first rows that are wrong: file, line, path and remedy."""
    report: Uri | None = None
    """The whole report."""


class CheckpointRecord(Model):
    """The newest complete checkpoint that is known of."""

    step: int
    """After so many optimizer steps."""
    time: datetime | None = None
    """When it was saved."""
    uri: Uri
    """Its folder."""
    resumes: int = 0
    """Attempts of the run that went on from a checkpoint."""
    lost_seconds: int = 0
    """Seconds of training that attempts lost because they ended after their last checkpoint."""


class GateResult(Model):
    """One comparison of the gate."""

    check: Annotated[str, Field(max_length=32)]
    """maxEvalLoss, maxPerplexity or compareWith."""
    value: Annotated[str, Field(max_length=32)]
    """What was measured."""
    limit: Annotated[str, Field(max_length=32)]
    """What it is compared with."""
    passed: bool
    """Whether it holds."""


class GateRecord(Model):
    """How the gate judged the newest complete run."""

    verdict: Literal["Passed", "Failed", "Warned"]
    """Warned: it failed, and onFailure is Warn."""
    results: Annotated[list[GateResult], Field(max_length=8)] = []
    """Each comparison."""


class TokenLogprob(Model):
    """One token and its log-probability."""

    id: int
    """The token's id."""
    logprob: Annotated[str, Field(max_length=16)]
    """Its natural logarithm."""


class ProbeRecord(Model):
    """What base and result say first to one of the fixed public conversations (`largeforge.api.probes`)."""

    name: Annotated[str, Field(max_length=32)]
    """The conversation."""
    prompt_digest: Digest
    """SHA-256 over the token ids (each four bytes, little-endian) of the conversation in the base's chat template."""
    base: Annotated[list[TokenLogprob], Field(max_length=5)] = []
    """The five likeliest first tokens of the base."""
    result: Annotated[list[TokenLogprob], Field(max_length=5)] = []
    """Those of base and adapter, or of the new model."""


class ArtifactRecord(Model):
    """What the run wrote."""

    kind: Literal["Adapter", "Model"]
    """An adapter, or a whole model."""
    uri: Uri
    """Its folder."""
    digest: Digest
    """SHA-256 over its weights."""
    size_bytes: int
    """The size of its files."""
    rank: int | None = None
    """The adapter's rank."""
    base: Annotated[str, Field(max_length=512)]
    """The model that an adapter belongs to, or that a whole model was trained from."""
    base_commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of an hf:// base."""
    use_dora: bool = False
    """Whether it is a DoRA adapter, which engines refuse."""
    modules_to_save: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=64)] = []
    """Modules that were trained whole beside the adapter; engines refuse them."""
    probes: Annotated[list[ProbeRecord], Field(max_length=3)] = []
    """What base and result say first to three fixed conversations."""


class RunFacts(Model):
    """What was in force, read back from the run."""

    base_commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of an hf:// base."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """The image that trained."""
    strategy: Annotated[str, Field(max_length=32)] = ""
    """Single, DDP or FSDP."""
    precision: Annotated[str, Field(max_length=16)] = ""
    """BF16, FP16 or FP32."""
    ranks: int = 0
    """Processes that trained."""
    per_device_train_batch_size: int = 0
    """Samples of one rank in one forward pass."""
    gradient_accumulation_steps: int = 0
    """Forward passes for each optimizer step."""
    batch_halvings: int = 0
    """How often the micro-batch was halved because a GPU's memory did not suffice."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries."""


class Usage(Model):
    """What the newest run has held."""

    gpu_seconds: int = 0
    """GPUs times seconds, over the attempts that ended."""


class FineTuneJobStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    phase: Annotated[str, Field(max_length=32)] = ""
    """One word for the column, derived from the conditions: Pending, Preflight, Running, Complete, Failed or
    Suspended."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """The one thing that it waits for, or how it ended."""
    conditions: Conditions = []
    """Complete, Failed, Suspended, Stalled; Validated, StorageReachable, DatasetValid, Running, GatePassed,
    Published."""
    base: Annotated[str, Field(max_length=640)] = ""
    """The model to start from, in one word for the column."""
    run: RunRecord | None = None
    """The newest run."""
    history: Annotated[list[RunRecord], Field(max_length=10)] = []
    """Earlier runs, the newest first."""
    progress: Progress | None = None
    """How far the newest attempt is."""
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    """What the run measured: train_loss, eval_loss_before, eval_loss, perplexity and others."""
    dataset: DatasetSummary | None = None
    """What preflight found in the data."""
    checkpoint: CheckpointRecord | None = None
    """The newest complete checkpoint that is known of."""
    gate: GateRecord | None = None
    """How the gate judged the newest complete run."""
    artifact: ArtifactRecord | None = None
    """What the newest complete run wrote."""
    artifact_run: int | None = None
    """The number of the run that wrote it."""
    resolved: RunFacts | None = None
    """What was in force, read back from the run."""
    usage: Usage | None = None
    """What the newest run has held."""
    expert_ref: ObjectRef | None = None
    """The Expert that was made."""
    error: ErrorDetail | None = None
    """Why the newest run failed."""
