"""Why an artifact is not looked at, copied or removed."""

from __future__ import annotations

from largeforge.api.names import ExitCode, Reason
from largeforge.jobs.errors import RunError


class ArtifactNotFoundError(RunError):
    """Nothing lies there."""

    reason = Reason.ARTIFACT_NOT_FOUND
    exit_code = ExitCode.INVALID_DATA


class NotAModelError(RunError):
    """The folder is no model's."""

    reason = Reason.NOT_A_MODEL
    exit_code = ExitCode.INVALID_DATA


class NotAnAdapterError(RunError):
    """The folder is no LoRA adapter's."""

    reason = Reason.NOT_AN_ADAPTER
    exit_code = ExitCode.INVALID_DATA


class RemoteCodeError(RunError):
    """The model asks for code of its own."""

    reason = Reason.REMOTE_CODE_NOT_ALLOWED
    exit_code = ExitCode.INVALID_DATA


class PickledWeightsError(RunError):
    """There are pickles alone."""

    reason = Reason.PICKLED_WEIGHTS
    exit_code = ExitCode.INVALID_DATA


class WeightsDamagedError(RunError):
    """A safetensors file is none, or cut short."""

    reason = Reason.WEIGHTS_DAMAGED
    exit_code = ExitCode.INVALID_DATA


class SymlinkRefusedError(RunError):
    """A file is a link, or no file at all."""

    reason = Reason.SYMLINK_REFUSED
    exit_code = ExitCode.INVALID_DATA


class FolderTooDeepError(RunError):
    """It has more levels or files than an artifact has."""

    reason = Reason.FOLDER_TOO_DEEP
    exit_code = ExitCode.INVALID_DATA


class NotReadableError(RunError):
    """The rights do not suffice."""

    reason = Reason.NOT_READABLE
    exit_code = ExitCode.INVALID_DATA


class DigestDiffersError(RunError):
    """The weights are not those that are meant."""

    reason = Reason.DIGEST_DIFFERS
    exit_code = ExitCode.INVALID_DATA


class StoreError(RunError):
    """The store does not take files, or the claim does not answer."""

    reason = Reason.STORAGE_NOT_READY
