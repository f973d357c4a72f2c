"""Whether the disks have room for what a run will write. An estimate, said with its arithmetic."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from largeforge.api.names import Reason
from largeforge.api.run import RunConfig
from largeforge.jobs.errors import DiskFullError, RunError

_WEIGHT_BYTES = 4
"""Of a trained weight in a checkpoint: training holds it in 32 bit."""
_STATE_BYTES = {"adamw": 8, "adam": 8, "lion": 4, "sgd": 4, "adafactor": 1}
"""Of the optimizer's state for each weight, by the beginning of its name; 8 for those that are not listed."""
_QUANTIZED_STATE_BYTES = 2
_SMALL = 16 << 20
"""Tokenizer, card, plot and records."""


class NotWritableError(RunError):
    """The claim does not take files."""

    reason = Reason.STORAGE_NOT_READY


@dataclass(frozen=True, slots=True)
class Need:
    """What one folder has to take."""

    path: Path
    uri: str
    field: str
    size: int
    arithmetic: str


def needs(config: RunConfig, *, parameters: int, trained: int, base_bytes: int, freed: int = 0) -> list[Need]:
    """What output and checkpoints will take; *freed* are the bytes of earlier runs' checkpoints, which go before."""
    each = trained * (_WEIGHT_BYTES + state_bytes(config.training.optim)) + _SMALL
    kept = config.checkpoint.keep + 1  # the newest is whole before the oldest goes
    whole = config.lora is None or config.merge
    artifact = (base_bytes or parameters * 2) if whole else trained * _WEIGHT_BYTES
    kind = "a whole model" if whole else "an adapter"
    less = f", less {_gb(freed)} of earlier runs" if freed else ""
    return [
        Need(
            Path(config.output_path), config.output_uri, "spec.output.uri", artifact + _SMALL,
            f"{kind} of {_gb(artifact + _SMALL)}",
        ),
        Need(
            Path(config.checkpoint.path), config.checkpoint.uri, "spec.checkpoint.uri", max(0, kept * each - freed),
            f"{kept} checkpoints of {_gb(each)} ({trained:,} trained weights of"
            f" {_WEIGHT_BYTES + state_bytes(config.training.optim)} bytes{less})",
        ),
    ]  # fmt: skip


def state_bytes(optim: str) -> int:
    """Bytes of the optimizer's state for each trained weight."""
    if "8bit" in optim or "4bit" in optim:
        return _QUANTIZED_STATE_BYTES
    return next((size for name, size in _STATE_BYTES.items() if optim.startswith(name)), 8)


def check_writable(config: RunConfig) -> None:
    """Raise where output or checkpoints cannot be written; a folder that is not mounted here is passed over."""
    for path, uri, field in (
        (Path(config.output_path), config.output_uri, "spec.output.uri"),
        (Path(config.checkpoint.path), config.checkpoint.uri, "spec.checkpoint.uri"),
    ):
        if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
            raise NotWritableError(
                f"{uri}: cannot be written; the folder must belong to group 2000 or be open to it, and the claim must"
                " not be read-only",
                field=field,
            )


def check(wanted: list[Need], free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free) -> None:
    """Raise where a disk has less room than it needs; folders on one disk count together."""
    disks: dict[int, list[Need]] = {}
    for need in wanted:
        if need.path.is_dir():
            disks.setdefault(need.path.stat().st_dev, []).append(need)
    for together in disks.values():
        size = sum(need.size for need in together)
        room = free(together[0].path)
        if size > room:
            sums = " and ".join(need.arithmetic for need in together)
            raise DiskFullError(
                f"{together[0].uri}: the run needs about {_gb(size)} ({sums}), and {_gb(room)} are free; free space,"
                " lower checkpoint.keep, or use a larger claim",
                field=together[0].field,
            )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 100_000_000 else f"{size / 1e6:.1f} MB"
