"""What goes wrong while a model is quantized or measured, as the user reads it."""

from __future__ import annotations

from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact
from largeforge.jobs import errors
from largeforge.jobs.errors import DiskFullError, OutOfGPUMemoryError, OutOfMemoryError, RunError

MEMORY_REMEDY = (
    "raise spec.compute.resources.limits.memory, or lower spec.calibration.numSamples or spec.calibration.maxLength"
)
GPU_MEMORY_REMEDY = "lower spec.calibration.maxLength, or choose a GPU with more memory"
DISK_REMEDY = "free space on the claim of spec.output.uri"


class QuantizeError(RunError):
    """The method came to no result."""

    reason = Reason.QUANTIZE_FAILED


class EvaluationError(RunError):
    """The engine gave no figure."""

    reason = Reason.EVALUATION_FAILED


class EvaluationRefusedError(EvaluationError):
    """The engine gave no figure, and would not the next time either: there is no other attempt."""

    exit_code = ExitCode.INVALID_DATA


class TooLargeError(OutOfMemoryError):
    """The memory is known not to suffice before the work begins: another attempt would not either."""

    exit_code = ExitCode.INVALID_CONFIG


def from_exception(error: BaseException) -> RunError:
    """*error* as a `RunError` with this job's remedies; what has no reason of its own is QuantizeFailed."""
    known = errors.from_exception(error)
    if isinstance(error, RunError):
        return known
    text = redact((str(error).splitlines() or [""])[0], limit=300)
    for kind, remedy in (
        (OutOfGPUMemoryError, GPU_MEMORY_REMEDY),
        (OutOfMemoryError, MEMORY_REMEDY),
        (DiskFullError, DISK_REMEDY),
    ):
        if isinstance(known, kind):
            return kind(f"{type(error).__name__}: {text}; {remedy}")
    return QuantizeError(f"{type(error).__name__}: {text}" if text else type(error).__name__)
