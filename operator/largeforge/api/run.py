"""The contract between the operator and the pods of a run: one `RunConfig` in, one `RunResult` out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.datasets import DataPolicy, DatasetFormat
from largeforge.api.finetunejobstatus import ArtifactRecord, CheckpointRecord, DatasetSummary, RunFacts
from largeforge.api.messages import fitted
from largeforge.api.model import StrictModel

MAIN_METRICS = frozenset({"train_loss", "eval_loss_before", "eval_loss", "perplexity"})
"""What a gate judges and a person looks for first: it stays in a message that has to be shortened."""
RESULT_FILE = "result.json"
CONFIG_FILE = "config.json"
PROGRESS_CA_FILE = "progress-ca.crt"
CONFIG_DIR = "/etc/largeforge/run"
"""Where the run's ConfigMap is mounted; it holds `CONFIG_FILE`, and `PROGRESS_CA_FILE` where progress is posted."""
TERMINATION_LOG = "/dev/termination-log"
TOKEN_DIR = "/var/run/secrets/largeforge"  # noqa: S105 - a folder
PROGRESS_TOKEN_FILE = f"{TOKEN_DIR}/progress-token"
PROGRESS_AUDIENCE = "largeforge-progress"
PROGRESS_URL = "LARGEFORGE_PROGRESS_URL"
"""The environment variable with the address that progress is posted to; without it nothing is."""


class ModelSource(StrictModel):
    """The model to start from, as the pod finds it."""

    uri: str
    """The model, for messages and the record."""
    field: str
    """The field that named it, for example `spec.base.uri`."""
    path: str | None
    """Its folder in the container (read-only); None for an hf:// model, which lies in the hub's cache."""
    revision: str | None = None
    """What the user asked of the hub."""
    commit: str | None = None
    """What preflight found that to be; None in preflight itself."""
    digest: str | None = None
    """SHA-256 over its weights, or its commit, as preflight found it: computed once, not by each rank."""
    token_env: str | None = None
    """The environment variable with the hub's token."""
    trust_remote_code: bool = False


class AdapterSource(StrictModel):
    """An adapter that is trained further."""

    uri: str
    field: str
    path: str
    """Its folder in the container (read-only)."""


class RowSource(StrictModel):
    """A data set, as the pod finds it."""

    uri: str
    """What the user wrote, for messages."""
    field: str
    """The field that named it, for example `spec.datasets[0]`."""
    path: str | None
    """The file or folder in the container; None for an hf:// data set."""
    revision: str | None = None
    commit: str | None = None
    config: str | None = None
    split: str | None = None
    format: DatasetFormat = "Auto"
    columns: dict[str, str] = {}
    """Canonical column name to the file's."""
    weight: float = 1
    max_samples: int | None = None
    token_env: str | None = None


class LoraSettings(StrictModel):
    """PEFT's `LoraConfig`, the part that we set."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: list[str]
    use_rslora: bool = False
    use_dora: bool = False
    modules_to_save: list[str] | None = None


class EarlyStoppingSettings(StrictModel):
    """transformers' `EarlyStoppingCallback`."""

    patience: int
    threshold: float


class TrainingSettings(StrictModel):
    """TRL's `SFTConfig`, the part that we set; every value is the effective one."""

    max_steps: int | None
    num_train_epochs: float | None
    learning_rate: float
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0
    max_grad_norm: float = 1
    optim: str = "adamw_torch"
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    max_length: int
    packing: bool = False
    assistant_only_loss: bool = False
    completion_only_loss: bool | None = None
    precision: Literal["Auto", "BF16", "FP16", "FP32"]
    gradient_checkpointing: bool = True
    attn_implementation: str | None = None
    seed: int
    eval_steps: int | None = None
    logging_steps: int = 1
    early_stopping: EarlyStoppingSettings | None = None


class ComputeSettings(StrictModel):
    """The ranks and how they share the work."""

    processes: int
    """The number of ranks that must take part; a mismatch fails the run."""
    use_cpu: bool
    strategy: Literal["Single", "DDP", "FSDP"]
    """The strategy that must be in force; a mismatch fails the run."""
    reshard_after_forward: bool = True
    cpu_offload: bool = False


class CheckpointSettings(StrictModel):
    """When the state is saved, and whether it is used."""

    path: str
    """The folder in the container under which this run's folder of checkpoints lies (writable)."""
    uri: str
    """The same for the record."""
    every_steps: int | None
    every_minutes: float | None
    keep: int
    resume: bool


class TrackingSettings(StrictModel):
    """Where metrics are sent."""

    report_to: Literal["tensorboard", "wandb", "mlflow"]
    project: str
    uri: str | None = None


class RunConfig(StrictModel):
    """All that a pod of a run needs to know; the operator writes it into the run's ConfigMap, as JSON.

    Preflight and training read the same; commits are None until preflight has found them.
    """

    namespace: str
    job: str
    """The FineTuneJob's name."""
    uid: str = ""
    """The FineTuneJob's own; empty in a bare call for a trial."""
    run: int
    """The run's number."""
    digest: str
    """The run's digest."""
    method: Literal["SFT"]
    base: ModelSource
    adapter: AdapterSource | None = None
    """The adapter to go on from; with `lora` it is trained further, without it is merged first."""
    datasets: list[RowSource]
    eval_dataset: RowSource | None = None
    eval_split_ratio: float
    data_policy: DataPolicy = DataPolicy()
    lora: LoraSettings | None
    """None trains all weights."""
    training: TrainingSettings
    extra_args: dict[str, Any] = {}
    """More fields of TRL's `SFTConfig`."""
    compute: ComputeSettings
    cache_path: str | None = None
    """The hub's cache (writable in preflight, read-only after it); None where each pod has its own."""
    checkpoint: CheckpointSettings
    output_uri: str
    """What the user wrote; the artifact's URI is `<output_uri>/<job>-<12 hex>`."""
    output_path: str
    """Its folder, in the container (writable)."""
    merge: bool = False
    tracking: TrackingSettings | None = None


class ResolvedSources(StrictModel):
    """What preflight found the hub's revisions to be."""

    base_commit: str | None = None
    base_digest: str = ""
    """SHA-256 over the base's weights (a commit stands for them)."""
    dataset_commits: list[str] = []
    """One for each data set, the evaluation data set last; empty where it is not of the hub."""


class RunResult(StrictModel):
    """How a pod of a run ended; training writes it as `result.json` beside the artifact, all as termination message."""

    outcome: Literal["Succeeded", "Failed"]
    """Of a preflight, Succeeded means that training may begin."""
    stage: Literal["Preflight", "Training"] = "Training"
    run_digest: str = ""
    """The digest of the RunConfig; the operator takes no result of another run."""
    error: ErrorDetail | None = None
    """Why it failed."""
    dataset: DatasetSummary | None = None
    sources: ResolvedSources | None = None
    """What the hub's revisions are (preflight); of an artifact, the base's alone."""
    warnings: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] = []
    """What the user should know although it is no error."""
    artifact: ArtifactRecord | None = None
    """What was written, or found whole: a preflight that finds it ends the run before a GPU is taken."""
    checkpoint: CheckpointRecord | None = None
    """The newest complete checkpoint, also of an attempt that failed or was stopped."""
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    facts: RunFacts | None = None
    adopted: bool = False
    """Whether an earlier attempt had already written the artifact, so that this one trained nothing."""

    def message(self) -> str:
        """The JSON for the termination message, without what status can do without where it would not fit.

        `_shorter` says what goes first; the file keeps all of it.
        """
        return fitted(self, _shorter)


def _shorter(result: RunResult) -> RunResult | None:
    """*result* without the next of what may go: metrics beyond `MAIN_METRICS`, problems of rows, warnings, versions,
    probes, names of modules beyond the first, then the other metrics and the error's text; None where all has gone.
    """
    extra = [metric for metric in result.metrics if metric.name not in MAIN_METRICS]
    dataset, facts, artifact, error = result.dataset, result.facts, result.artifact, result.error
    update: dict[str, Any]
    if extra:
        update = {"metrics": [metric for metric in result.metrics if metric is not extra[-1]]}
    elif dataset is not None and dataset.problems:
        update = {"dataset": dataset.model_copy(update={"problems": dataset.problems[:-1]})}
    elif result.warnings:
        update = {"warnings": result.warnings[:-1]}
    elif facts is not None and facts.versions:
        update = {"facts": facts.model_copy(update={"versions": []})}
    elif artifact is not None and artifact.probes:
        update = {"artifact": artifact.model_copy(update={"probes": artifact.probes[:-1]})}
    elif artifact is not None and len(artifact.modules_to_save) > 1:
        update = {"artifact": artifact.model_copy(update={"modules_to_save": artifact.modules_to_save[:1]})}
    elif result.metrics:
        update = {"metrics": result.metrics[:-1]}
    elif error is not None and error.message:
        update = {"error": error.model_copy(update={"message": error.message[: len(error.message) // 2]})}
    else:
        return None
    return result.model_copy(update=update)
