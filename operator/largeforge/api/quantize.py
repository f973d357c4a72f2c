"""The contract between the operator and the pods of a QuantizeJob: a configuration in, one `QuantizeResult` out.

A run is a chain of Jobs. **Preflight** (CPU) checks source, calibration and methods, merges an adapter, and writes the
tokens that the others need. **Evaluate** measures the source. Then for each method in order, until one passes the gate:
**Quantize** writes the smaller model, **Evaluate** loads it in the serving engine and measures it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.finetunejobstatus import ArtifactRecord
from largeforge.api.messages import fitted
from largeforge.api.model import StrictModel
from largeforge.api.quantizejob import Method, QuantizeEngine
from largeforge.api.quantizejobstatus import CalibrationRecord, EvaluationRecord, SourceRecord
from largeforge.api.run import AdapterSource, ModelSource, RowSource

Stage = Literal["Preflight", "Quantize", "Evaluate"]

CALIBRATION_FILE = "calibration.json"
"""In the prepared folder: the calibration samples as lists of token ids."""
WINDOWS_FILE = "windows.json"
"""In the prepared folder: the held-out windows as lists of token ids; the source and every result answer the same."""


class MethodSettings(StrictModel):
    """One method, every value the effective one."""

    field: str
    """The field that named it, for example `spec.methods[0]`."""
    method: Method
    engine: QuantizeEngine
    group_size: int | None
    """Weights that share a scale; None where the method has none (W8A8, FP8Dynamic)."""
    symmetric: bool
    """Whether the weights have no zero point."""
    ignore: list[str]
    """Names of modules that stay as they are; `re:` begins a pattern of llm-compressor's."""
    digest: str
    """SHA-256 over all that decides the result beside source and calibration data: this, and calibration's settings."""


class CalibrationSettings(StrictModel):
    """What the methods learn their scales on."""

    datasets: list[RowSource]
    """Empty where no method needs data."""
    num_samples: int
    max_length: int
    """Tokens; longer samples are cut."""
    seed: int
    apply_chat_template: bool


class EvaluationSettings(StrictModel):
    """The held-out text that source and results are measured on."""

    dataset: RowSource | None
    """None: rows of the calibration data that calibration does not use."""
    window_tokens: int
    max_windows: int


class QuantizeConfig(StrictModel):
    """What a pod of the stages Preflight and Quantize needs to know (`config.json` in its ConfigMap)."""

    stage: Literal["Preflight", "Quantize"]
    namespace: str
    job: str
    """The QuantizeJob's name."""
    run: int
    """The run's number."""
    digest: str
    """The run's digest."""
    source: ModelSource
    """The model. In Quantize its path is always set: the folder that preflight merged, or that the hub's cache has."""
    adapter: AdapterSource | None = None
    """Preflight alone: the adapter to merge first, in 16 bit."""
    methods: Annotated[list[MethodSettings], Field(min_length=1)]
    """Preflight checks all of them; Quantize does the one that is there."""
    calibration: CalibrationSettings
    """In Quantize without data sets: the tokens are in the prepared folder."""
    evaluation: EvaluationSettings
    prepared_path: str | None
    """Quantize: the folder (read-only) with `CALIBRATION_FILE`. Preflight makes it, below `output_path`."""
    prepared_digest: str | None = None
    """Quantize: SHA-256 over the calibration tokens, as preflight has said it."""
    cache_path: str | None = None
    """The hub's cache (writable in preflight, read-only after it)."""
    output_uri: str
    """What the user wrote. Results lie in `<output_uri>/<job>-<12 hex>`, what preflight makes beside it in
    `<job>-<12 hex>-tokens` and `<job>-<12 hex>-source`, named by what they hold, so that a later run finds them."""
    output_path: str
    """Its folder in the container (writable)."""
    use_cpu: bool


class EvaluateConfig(StrictModel):
    """What the pod of the stage Evaluate needs to know (`config.json` in its ConfigMap).

    The engine is a sidecar that serves the model without LoRA; it answered `/health` before this container began.
    """

    stage: Literal["Evaluate"] = "Evaluate"
    namespace: str
    job: str
    run: int
    digest: str
    subject: str
    """What is measured, for messages: the source's URI, or the method."""
    field: str
    """The field that named it."""
    engine_url: str
    """`http://127.0.0.1:8000`."""
    model_name: str
    """The name under which the engine serves it."""
    prepared_path: str
    """The folder (read-only) with `WINDOWS_FILE`."""
    windows_digest: str
    """SHA-256 over `WINDOWS_FILE`, as preflight has said it."""


class PreparedRecord(StrictModel):
    """What preflight found and made."""

    source: SourceRecord
    """The model as the methods get it: merged, where there was an adapter."""
    calibration: CalibrationRecord | None = None
    """None where no method needs data."""
    windows: int
    """Held-out windows."""
    window_tokens: int
    """Tokens in all of them."""
    windows_digest: str
    """SHA-256 over `WINDOWS_FILE`."""
    uri: str
    """The prepared folder, below the output: `CALIBRATION_FILE` and `WINDOWS_FILE`."""


class QuantizeResult(StrictModel):
    """How a pod ended; Quantize writes it as `result.json` beside the model, all as termination message."""

    outcome: Literal["Succeeded", "Failed"]
    stage: Stage
    run_digest: str = ""
    """The digest of the configuration; the operator takes no result of another run."""
    error: ErrorDetail | None = None
    """Why it failed."""
    warnings: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=8)] = []
    """What the user should know although it is no error."""
    prepared: PreparedRecord | None = None
    """Preflight."""
    artifact: ArtifactRecord | None = None
    """Quantize: what was written, or found whole."""
    adopted: bool = False
    """Quantize: whether an earlier attempt had written it."""
    evaluation: EvaluationRecord | None = None
    """Evaluate."""
    seconds: int = 0
    """What the work took; of an adopted model, what it took then."""
    peak_memory_bytes: int = 0
    """The most memory that the process held (on a GPU: of the GPU)."""
    versions: Annotated[list[Metric], Field(max_length=16)] = []
    """The libraries that did it."""

    def message(self) -> str:
        """The JSON for the termination message, without what status can do without where it would not fit."""
        return fitted(self, _shorter)


def _shorter(result: QuantizeResult) -> QuantizeResult | None:
    """*result* without the next of what may go: warnings, versions, problems of rows, half of the error's text."""
    error, prepared = result.error, result.prepared
    calibration = prepared.calibration if prepared is not None else None
    update: dict[str, Any]
    if result.warnings:
        update = {"warnings": result.warnings[:-1]}
    elif result.versions:
        update = {"versions": []}
    elif prepared is not None and calibration is not None and calibration.problems:
        fewer = calibration.model_copy(update={"problems": calibration.problems[:-1]})
        update = {"prepared": prepared.model_copy(update={"calibration": fewer})}
    elif error is not None and error.message:
        update = {"error": error.model_copy(update={"message": error.message[: len(error.message) // 2]})}
    else:
        return None
    return result.model_copy(update=update)
