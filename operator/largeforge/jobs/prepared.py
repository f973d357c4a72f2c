"""The tokens that preflight leaves for the other steps: calibration samples, and the windows to measure on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from largeforge.api.names import Reason
from largeforge.api.quantize import CALIBRATION_FILE, WINDOWS_FILE
from largeforge.jobs.errors import RunError


class PreparedLostError(RunError):
    """What preflight prepared is not there any more, or was changed."""

    reason = Reason.STORAGE_NOT_READY


def digest(samples: Sequence[Sequence[int]]) -> str:
    """SHA-256 over the token ids, and over the file that holds them."""
    return hashlib.sha256(_encoded(samples)).hexdigest()


def write(folder: Path, *, windows: Sequence[Sequence[int]], samples: Sequence[Sequence[int]] | None) -> None:
    """Write `WINDOWS_FILE` and, where a method learns its scales on data, `CALIBRATION_FILE`."""
    (folder / WINDOWS_FILE).write_bytes(_encoded(windows))
    if samples is not None:
        (folder / CALIBRATION_FILE).write_bytes(_encoded(samples))


def read_windows(folder: Path, *, expected: str) -> list[list[int]]:
    """The windows in *folder*, whose digest must be *expected*."""
    return _read(folder / WINDOWS_FILE, expected)


def read_samples(folder: Path, *, expected: str) -> list[list[int]]:
    """The samples in *folder*, whose digest must be *expected*."""
    return _read(folder / CALIBRATION_FILE, expected)


def is_whole(folder: Path, *, windows: str, samples: str | None) -> bool:
    """Whether an earlier preflight has left all of it in *folder*."""
    try:
        read_windows(folder, expected=windows)
        if samples is not None:
            read_samples(folder, expected=samples)
    except PreparedLostError:
        return False
    return True


def _read(path: Path, expected: str) -> list[list[int]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise _lost(path, error.strerror or type(error).__name__) from None
    if hashlib.sha256(text).hexdigest() != expected:
        raise _lost(path, "it has another content")
    found: list[list[int]] = json.loads(text)
    return found


def _encoded(samples: Sequence[Sequence[int]]) -> bytes:
    return json.dumps(samples, separators=(",", ":")).encode()


def _lost(path: Path, why: str) -> PreparedLostError:
    return PreparedLostError(
        f"{path.name}, which preflight wrote below spec.output.uri, cannot be used ({why}); create the QuantizeJob"
        " again",
        field="spec.output.uri",
    )
