"""How the ranks tell the launcher how they ended: a file each, in the launcher's folder.

A worker's exit code alone says little, and torchrun's own is always 1. So every rank writes its `RunResult` before it
ends, and the process that runs torchrun writes what it saw of the workers (`elastic.py`); the launcher reads both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from largeforge.api.run import RunResult

STATE_DIR = "LARGEFORGE_STATE_DIR"
"""The environment variable that names the launcher's folder."""
BATCH_HALVINGS = "LARGEFORGE_BATCH_HALVINGS"
"""The environment variable with how often the launcher has halved the micro-batch."""
_SEEN_FILE = "torchrun.json"
_PLACE_FILE = "checkpoints.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker that ended badly, as torchrun saw it."""

    rank: int
    exit_code: int
    """Negative for a signal."""
    timestamp: int
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What torchrun saw."""

    failures: Sequence[Failure] = ()
    """The workers that ended badly."""
    error: str = ""
    """Why it ended itself, where no worker is to blame."""


def write_result(result: RunResult, *, rank: int, environment: Mapping[str, str] = os.environ) -> None:
    """Leave *result* for the launcher; without one, as in a bare call for a trial, there is nobody to tell."""
    folder = environment.get(STATE_DIR)
    if folder is not None:
        _write(Path(folder) / f"rank-{rank}.json", result.model_dump_json(by_alias=True, exclude_none=True))


def read_results(folder: Path) -> dict[int, RunResult]:
    """What the ranks left, by rank; one that was killed left nothing."""
    results = {}
    for path in folder.glob("rank-*.json"):
        results[int(path.stem.removeprefix("rank-"))] = RunResult.model_validate_json(path.read_bytes())
    return results


def write_seen(seen: Seen, folder: Path) -> None:
    """Leave what torchrun saw."""
    _write(folder / _SEEN_FILE, json.dumps(asdict(seen)))


def read_seen(folder: Path) -> Seen:
    """What torchrun saw; nothing where all went well, or where it was killed itself."""
    try:
        text = (folder / _SEEN_FILE).read_bytes()
    except FileNotFoundError:
        return Seen()
    entry = json.loads(text)
    return Seen([Failure(**failure) for failure in entry["failures"]], entry["error"])


def write_place(folder: Path, uri: str, *, environment: Mapping[str, str] = os.environ) -> None:
    """Tell the launcher in which *folder* the run's checkpoints lie, and under which *uri* they are known."""
    state = environment.get(STATE_DIR)
    if state is not None:
        _write(Path(state) / _PLACE_FILE, json.dumps({"folder": str(folder), "uri": uri}))


def read_place(folder: Path) -> tuple[Path, str] | None:
    """Folder and URI of the run's checkpoints; None where no rank came so far."""
    try:
        place = json.loads((folder / _PLACE_FILE).read_bytes())
    except FileNotFoundError:
        return None
    return Path(place["folder"]), place["uri"]


def _write(path: Path, text: str) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(text)
    aside.rename(path)
