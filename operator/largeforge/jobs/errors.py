"""How a run fails: with a reason, words for the user, the field to look at, and an exit code."""

from __future__ import annotations

import errno

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
    """The pod had not the memory."""

    reason = Reason.OUT_OF_MEMORY


class OutOfGPUMemoryError(RunError):
    """A GPU had not the memory; the launcher tries a smaller micro-batch."""

    reason = Reason.OUT_OF_GPU_MEMORY


class DiskFullError(RunError):
    """A volume has no room left."""

    reason = Reason.DISK_FULL


MEMORY_REMEDY = (
    "lower spec.training.perDeviceTrainBatchSize or spec.training.maxLength, train an adapter (spec.peft.type: LoRA),"
    " or raise spec.compute.resources.limits.memory"
)
GPU_MEMORY_REMEDY = (
    "lower spec.training.maxLength, set spec.training.gradientCheckpointing: true, train an adapter"
    " (spec.peft.type: LoRA), or raise spec.compute.gpusPerNode with strategy FSDP"
)
DISK_REMEDY = "free space on the claims of output and checkpoint, or lower spec.checkpoint.keep"

# What the libraries say; none of them has a type of its own for it.
_GPU_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "HIP out of memory")
_POD_MEMORY = ("DefaultCPUAllocator",)
_DISK = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing file")


def is_memory_trouble(error: BaseException) -> bool:
    """Whether *error* says that memory was short, a GPU's or the pod's."""
    return isinstance(error, MemoryError) or _names(error, "OutOfMemoryError", *_GPU_MEMORY, *_POD_MEMORY)


def from_exception(error: BaseException) -> RunError:
    """*error* as a `RunError`: memory and disk are told apart, the rest is TrainingFailed with type and text."""
    if isinstance(error, RunError):
        return error
    text = f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__
    if _names(error, "OutOfMemoryError", *_GPU_MEMORY):
        return OutOfGPUMemoryError(f"{redact(text, limit=300)}; {GPU_MEMORY_REMEDY}")
    if is_memory_trouble(error):
        return OutOfMemoryError(f"{redact(text, limit=300)}; {MEMORY_REMEDY}")
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or _names(error, *_DISK):
        return DiskFullError(f"{redact(text, limit=300)}; {DISK_REMEDY}")
    return RunError(redact(text, limit=600))


def _names(error: BaseException, *signs: str) -> bool:
    return type(error).__name__ in signs or any(sign in str(error) for sign in signs)
