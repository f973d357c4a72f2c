"""How a run fails: with a reason, words for the user, the field to look at, and an exit code."""

from __future__ import annotations

from largeforge.api.common import ErrorDetail
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact

MESSAGE_LIMIT = 1500
"""Characters of an error's text; with the rest of the result it has to fit the termination message."""


class RunError(Exception):
    """The run cannot go on. `exit_code` says whether another attempt could cure it (1) or not (64, 65)."""

    reason = Reason.TRAINING_FAILED
    exit_code = 1

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    def detail(self) -> ErrorDetail:
        """What status shows."""
        return ErrorDetail(reason=self.reason, message=redact(str(self), limit=MESSAGE_LIMIT), field=self.field)


class InvalidConfigError(RunError):
    """A setting of the job is wrong."""

    reason = Reason.INVALID_CONFIG
    exit_code = ExitCode.INVALID_CONFIG


class DatasetInvalidError(RunError):
    """A data set has rows that cannot be trained on."""

    reason = Reason.DATASET_INVALID
    exit_code = ExitCode.INVALID_DATA


class DatasetMissingError(RunError):
    """A data set's file is not there."""

    reason = Reason.DATASET_MISSING
    exit_code = ExitCode.INVALID_DATA


class BaseInvalidError(RunError):
    """The base model's folder is not what it should be."""

    reason = Reason.BASE_INVALID
    exit_code = ExitCode.INVALID_DATA


class OutOfMemoryError(RunError):
    """Neither the GPU nor the pod had the memory."""

    reason = Reason.OUT_OF_MEMORY


MEMORY_REMEDY = (
    "lower training.perDeviceTrainBatchSize or training.maxLength, train an adapter (peft.type: LoRA),"
    " or raise compute.resources.limits.memory"
)


def from_exception(error: BaseException) -> RunError:
    """*error* as a `RunError`: memory trouble is told apart, all else is TrainingFailed with type and text."""
    if isinstance(error, RunError):
        return error
    text = f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__
    # torch.OutOfMemoryError on a GPU; on a CPU torch's allocator raises a RuntimeError that names itself.
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "DefaultCPUAllocator" in str(error):
        return OutOfMemoryError(f"{redact(text, limit=300)}; {MEMORY_REMEDY}")
    return RunError(redact(text, limit=600))
