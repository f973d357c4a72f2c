"""What is observed of a QuantizeJob."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import ErrorDetail, Metric, ObjectRef
from largeforge.api.finetunejobstatus import ArtifactRecord, Digest, Line, Progress, ResolvedBase, Uri
from largeforge.api.meta import Conditions
from largeforge.api.model import Model

Figure = Annotated[str, Field(max_length=16)]


class SourceRecord(Model):
    """The model that is made smaller, as preflight found it: merged, where an adapter belongs to it."""

    uri: Uri
    """Its folder, or the hub's repository."""
    commit: Annotated[str, Field(max_length=64)] | None = None
    """The commit of an hf:// model."""
    digest: Digest
    """SHA-256 over its weights; a commit stands for them."""
    size_bytes: int
    """The size of its weights."""
    architecture: Annotated[str, Field(max_length=128)] = ""
    """The class that transformers knows it as."""
    dtype: Annotated[str, Field(max_length=32)] = ""
    """The type of its weights."""
    merged: bool = False
    """Whether an adapter was merged into it first."""
    removed: bool = False
    """Whether the merged model was removed after the run."""


class CalibrationRecord(Model):
    """What preflight found in the calibration data."""

    digest: Digest
    """SHA-256 over the tokens."""
    samples: int
    """Samples that the methods learn their scales on."""
    tokens: int
    """Tokens of all of them, after truncation."""
    truncated_ratio: Figure = "0"
    """The share of the samples that is cut."""
    duplicates: int = 0
    """Samples that stand there more than once (counted without the first)."""
    invalid: int = 0
    """Rows that are wrong."""
    problems: Annotated[list[Line], Field(max_length=5)] = []
    """The first rows that are wrong: file, line, path and remedy."""


class EvaluationRecord(Model):
    """A perplexity: the exponential of the mean negative log-probability of each token but a window's first."""

    perplexity: Figure
    """As measured by the serving engine."""
    tokens: int
    """Tokens that were counted."""
    windows: int
    """Windows that were read."""


class MethodAttempt(Model):
    """What one method came to."""

    method: Annotated[str, Field(max_length=32)]
    """The method."""
    perplexity_before: Figure | None = None
    """The source's perplexity."""
    perplexity_after: Figure | None = None
    """The result's, on the same windows."""
    increase_percent: Figure | None = None
    """By how much it is higher."""
    size_bytes: int | None = None
    """The size of the result's files."""
    seconds: int | None = None
    """What quantizing took."""
    peak_memory_bytes: int | None = None
    """The most memory that it held."""
    verdict: Literal["Passed", "Failed", "Warned", "Error"] | None = None
    """Passed the gate, failed it, failed it where onFailure is Warn, or came to nothing that could be measured; none
    while it goes on."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """The cause of the verdict in one word."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """The same in words."""
    artifact: ArtifactRecord | None = None
    """What it wrote."""
    removed: bool = False
    """Whether its files were removed, since the run let another method's result out."""


class QuantizeRunRecord(Model):
    """One run, its stage and its newest attempt; the record outlives its children."""

    number: int
    """Counts the runs of this object from 1; a change of the fields that decide the result starts the next."""
    digest: Digest
    """SHA-256 over the fields that decide the result, defaults left out."""
    stage: Literal["Preflight", "Quantize", "Evaluate"] = "Preflight"
    """Preflight checks and prepares on a CPU; Quantize makes a smaller model; Evaluate measures by the engine."""
    method: int | None = None
    """The place in `spec.methods` that Quantize and Evaluate are at; none while the source is evaluated."""
    attempt: int = 1
    """Counts the attempts of this stage (of this method) from 1."""
    failures: int = 0
    """Attempts of this stage (of this method) that count against `backoffLimit`."""
    job_name: Annotated[str, Field(max_length=63)] = ""
    """The Job of the newest attempt."""
    outcome: Literal["Succeeded", "Failed"] | None = None
    """How the run ended; none while it goes on. Succeeded: a method's result was let out, or none passed the gate."""
    start_time: datetime | None = None
    """When its first attempt was made."""
    completion_time: datetime | None = None
    """When it ended."""
    active_since: datetime | None = None
    """When it last began or was resumed; activeDeadlineSeconds counts from here, less activeSeconds."""
    active_seconds: int = 0
    """How long it was active before that."""
    base: ResolvedBase | None = None
    """What spec.source came to."""
    fields: Annotated[
        dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=8)]], Field(max_length=64)
    ] = {}
    """For each field that decides the result and is set, the beginning of its digest: what tells which has changed."""
    prepared_uri: Uri | None = None
    """The folder with calibration tokens and held-out windows."""
    windows_digest: Digest | None = None
    """SHA-256 over the windows."""
    chosen_method: Annotated[str, Field(max_length=32)] | None = None
    """The method whose result the run let out."""
    artifact: ArtifactRecord | None = None
    """That result."""


class QuantizeJobStatus(Model):
    """What was observed."""

    observed_generation: int = 0
    """The `metadata.generation` that this status is of."""
    phase: Annotated[str, Field(max_length=32)] = ""
    """One word for the column, derived from the conditions: Pending, Preflight, Quantizing, Evaluating, Complete,
    Failed or Suspended."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """The one thing that it waits for, or how it ended."""
    conditions: Conditions = []
    """Complete, Failed, Suspended, Stalled; Validated, StorageReachable, DatasetValid, Running, GatePassed,
    Published, LeftoversRemoved."""
    source_text: Annotated[str, Field(max_length=640)] = ""
    """The model to make smaller, in one word for the column."""
    run: QuantizeRunRecord | None = None
    """The newest run."""
    history: Annotated[list[QuantizeRunRecord], Field(max_length=10)] = []
    """Earlier runs, the newest first."""
    progress: Progress | None = None
    """How far the newest attempt is: steps are layers of the model, or windows of the evaluation."""
    source: SourceRecord | None = None
    """The model that is made smaller."""
    calibration: CalibrationRecord | None = None
    """What preflight found in the calibration data."""
    evaluation: EvaluationRecord | None = None
    """The source's perplexity."""
    method: Annotated[str, Field(max_length=32)] | None = None
    """The method that is at work, or was chosen: for the column."""
    perplexity_after: Figure | None = None
    """That method's perplexity: for the column."""
    attempts: Annotated[list[MethodAttempt], Field(max_length=8)] = []
    """What each method came to, in the order of spec.methods."""
    chosen_method: Annotated[str, Field(max_length=32)] | None = None
    """The method whose result was let out."""
    compression_ratio: Figure | None = None
    """The source's size over that of the method's result."""
    artifact: ArtifactRecord | None = None
    """The result that was let out; Experts follow it."""
    artifact_run: int | None = None
    """The number of the run that wrote it."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries that made it."""
    expert_ref: ObjectRef | None = None
    """The Expert that was made."""
    error: ErrorDetail | None = None
    """Why the newest run failed."""
