"""The contract between the operator and a run: one `RunConfig` in, one `RunResult` out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.finetunejob import ArtifactRecord, DatasetSummary, RunFacts
from largeforge.api.model import StrictModel

TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes that the kubelet keeps of `/dev/termination-log`."""
RESULT_FILE = "result.json"
CONFIG_FILE = "config.json"
CONFIG_DIR = "/etc/largeforge/run"
"""Where the run's ConfigMap is mounted; it holds `CONFIG_FILE`."""
TERMINATION_LOG = "/dev/termination-log"


class MountedDataset(StrictModel):
    """A data set as the run finds it."""

    uri: str
    """What the user wrote, for messages."""
    path: str
    """The file, in the container."""
    field: str
    """The field that named it, for example `spec.datasets[0].uri`."""


class LoraSettings(StrictModel):
    """PEFT's `LoraConfig`, the part that we set."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: list[str]


class TrainingSettings(StrictModel):
    """TRL's `SFTConfig`, the part that we set; every value is the effective one."""

    max_steps: int | None
    num_train_epochs: float | None
    learning_rate: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    max_length: int
    seed: int
    precision: Literal["Auto", "BF16", "FP16", "FP32"]


class RunConfig(StrictModel):
    """All that a run needs to know; the operator writes it into the run's ConfigMap, as JSON."""

    job: str
    """The FineTuneJob's name."""
    run: int
    """The run's number."""
    digest: str
    """The run's digest."""
    method: Literal["SFT"]
    base_uri: str
    """What the user wrote, for messages and the record."""
    base_path: str
    """The model's folder, in the container (read-only)."""
    datasets: list[MountedDataset]
    eval_split_ratio: float
    lora: LoraSettings | None
    """None trains all weights."""
    training: TrainingSettings
    processes: int
    """The number of ranks that must take part; a mismatch fails the run."""
    use_cpu: bool
    output_uri: str
    """What the user wrote; the artifact's URI is `<output_uri>/<job>-<12 hex>`."""
    output_path: str
    """Its folder, in the container (writable)."""


class RunResult(StrictModel):
    """How a run ended; written as `result.json` beside the artifact and as the pod's termination message."""

    outcome: Literal["Succeeded", "Failed"]
    run_digest: str = ""
    """The digest of the RunConfig; the operator takes no result of another run."""
    error: ErrorDetail | None = None
    """Why it failed."""
    artifact: ArtifactRecord | None = None
    dataset: DatasetSummary | None = None
    metrics: Annotated[list[Metric], Field(max_length=64)] = []
    facts: RunFacts | None = None
    adopted: bool = False
    """Whether an earlier attempt had already written the artifact, so that this one trained nothing."""

    def message(self) -> str:
        """The JSON for the termination message, shortened from the end until it fits.

        What goes first is what status can do without: metrics, then the error's text. The file keeps all of it.
        """
        result = self
        while (
            len(text := result.model_dump_json(by_alias=True, exclude_none=True).encode()) > TERMINATION_MESSAGE_LIMIT
        ):
            if result.metrics:
                result = result.model_copy(update={"metrics": result.metrics[:-1]})
            elif result.error is not None and result.error.message:
                shorter = result.error.message[: len(result.error.message) // 2]
                result = result.model_copy(update={"error": result.error.model_copy(update={"message": shorter})})
            else:
                raise ValueError(f"a result of {len(text)} bytes does not fit the termination message")
        return text.decode()
