"""The folder of a run's checkpoints: which are whole, which is the newest, what is kept and what was lost. No torch.

transformers writes a checkpoint file by file, and its own picker takes the one with the highest step, whole or not. So
the first rank writes a manifest with all sizes into it last, when every rank has written and all of it is on the disk:
a checkpoint without one, or with a file of another size, is passed over.

The folder belongs to one artifact (its name says which), so attempts of one run share it and another run never goes on
from it. Its journal has the uid of the object; by that the object's next run knows what it may remove.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from largeforge.api.finetunejobstatus import CheckpointRecord, TokenLogprob
from largeforge.api.model import StrictModel
from largeforge.jobs import artifact

MANIFEST = "complete.json"
_PREFIX = "checkpoint-"
_JOURNAL = "journal.json"


class Manifest(StrictModel):
    """What makes a checkpoint whole, and what a resumed attempt cannot read from transformers' own files."""

    step: int
    time: datetime
    trained_seconds: float
    """Seconds of training that lie in it, over all attempts that led to it."""
    files: dict[str, int]
    """Each file's size."""


class Journal(StrictModel):
    """What the run's attempts leave for each other beside the checkpoints."""

    owner: str = ""
    """The uid of the FineTuneJob that trained here last."""
    resumes: int = 0
    """Attempts that went on from a checkpoint."""
    lost_seconds: float = 0
    """Seconds of training that ended attempts did after their last checkpoint."""
    step: int = 0
    """How far the newest attempt is known to have come."""
    trained_seconds: float = 0
    """Seconds of training that lie in that step, over all attempts that led to it."""
    base_answers: dict[str, list[TokenLogprob]] = {}
    """What the model that the run began with answers to the fixed conversations; a resumed one has forgotten it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole one."""

    path: Path
    manifest: Manifest


def folder_name(target: str) -> str:
    """The name of the folder for the artifact named *target*; the dot keeps it out of what users list."""
    return f".{target}-checkpoints"


def path_of(folder: Path, step: int) -> Path:
    """Where transformers writes the checkpoint of *step*."""
    return folder / f"{_PREFIX}{step}"


def complete(folder: Path) -> list[Checkpoint]:
    """The whole checkpoints in *folder*, the newest first."""
    found = [checkpoint for path in folder.glob(f"{_PREFIX}*") if (checkpoint := _read(path)) is not None]
    return sorted(found, key=lambda checkpoint: checkpoint.manifest.step, reverse=True)


def newest(folder: Path) -> Checkpoint | None:
    """The whole checkpoint with the highest step."""
    return next(iter(complete(folder)), None)


def seal(path: Path, *, step: int, trained_seconds: float) -> Checkpoint:
    """Declare the checkpoint in *path* whole: all ranks have written it. Its files are brought to the disk first."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        artifact.sync(file)
    artifact.sync(path)
    manifest = Manifest(
        step=step,
        time=datetime.now(UTC).replace(microsecond=0),
        trained_seconds=round(trained_seconds, 3),
        files={str(file.relative_to(path)): file.stat().st_size for file in files},
    )
    _replace(path / MANIFEST, manifest.model_dump_json(indent=1))
    artifact.sync(path)
    artifact.sync(path.parent)
    return Checkpoint(path, manifest)


def prune(folder: Path, *, keep: int, best: int | None = None) -> None:
    """Remove all but the *keep* newest whole ones and the one of step *best*; broken ones go too."""
    whole = complete(folder)
    kept = {checkpoint.path for checkpoint in whole[:keep]} | {path_of(folder, best) if best is not None else folder}
    for path in folder.glob(f"{_PREFIX}*"):
        if path not in kept:
            # The manifest first: a removal that is cut short leaves nothing that looks whole.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)


def begin(folder: Path, *, resume: bool, owner: str = "") -> Checkpoint | None:
    """Open the folder for a new attempt of *owner*, and return what it goes on from; called by one rank.

    What the attempt before did after its last checkpoint is counted as lost; so is all of it where *resume* is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        prune(folder, keep=0)
    found = newest(folder)
    journal = read_journal(folder)
    kept = found.manifest.trained_seconds if found is not None else 0.0
    write_journal(
        folder,
        journal.model_copy(
            update={
                "owner": owner,
                "resumes": journal.resumes + (found is not None),
                "lost_seconds": journal.lost_seconds + max(0.0, journal.trained_seconds - kept),
                "step": found.manifest.step if found is not None else 0,
                "trained_seconds": kept,
            }
        ),
    )
    return found


def read_journal(folder: Path) -> Journal:
    """What earlier attempts left; nothing where there was none, or where it cannot be read: it is only a record."""
    try:
        return Journal.model_validate_json((folder / _JOURNAL).read_bytes())
    except (OSError, ValueError):
        return Journal()


def write_journal(folder: Path, journal: Journal) -> None:
    """Leave *journal* for the attempts to come."""
    _replace(folder / _JOURNAL, journal.model_dump_json())


def record(folder: Path, *, uri: str) -> CheckpointRecord | None:
    """What status shows of the newest whole checkpoint; *uri* is that of *folder*."""
    found = newest(folder)
    if found is None:
        return None
    journal = read_journal(folder)
    after = max(0.0, journal.trained_seconds - found.manifest.trained_seconds)
    return CheckpointRecord(
        step=found.manifest.step,
        time=found.manifest.time,
        uri=f"{uri}/{found.path.name}",
        resumes=journal.resumes,
        lost_seconds=round(journal.lost_seconds + after),
    )


def remove(folder: Path) -> None:
    """Remove the folder, if it is there: nothing goes on from here.

    The journal goes last: of a removal that is cut short it is still known whose the rest is.
    """
    if not folder.is_dir():
        return
    prune(folder, keep=0)
    for path in folder.iterdir():
        if path.name != _JOURNAL:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)


def replaced(folder: Path, *, job: str, owner: str) -> list[Path]:
    """The folders beside *folder* of earlier runs of the same object: they failed, or were replaced by another.

    *owner* is the object's uid. What has no readable journal, or that of another object, is not among them.
    """
    if not owner or not folder.parent.is_dir():
        return []
    name = re.compile(rf"\.{re.escape(job)}-[0-9a-f]{{12}}-checkpoints")
    named = [path for path in folder.parent.iterdir() if path != folder and name.fullmatch(path.name)]
    return sorted(path for path in named if not path.is_symlink() and read_journal(path).owner == owner)


def clear_replaced(folder: Path, *, job: str, owner: str) -> list[str]:
    """Remove what `replaced` names; a line for the log of each. One that cannot be removed costs room, not the run."""
    lines = []
    for path in replaced(folder, job=job, owner=owner):
        try:
            remove(path)
        except OSError as error:
            lines.append(f"{path.name} of an earlier run cannot be removed ({error.strerror}); remove it by hand")
        else:
            lines.append(f"removed {path.name} of an earlier run")
    return lines


def size(folder: Path) -> int:
    """The bytes of the files in *folder*."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _read(path: Path) -> Checkpoint | None:
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    if path.name != f"{_PREFIX}{manifest.step}":
        return None
    for name, size in manifest.files.items():
        try:
            if (path / name).stat().st_size != size:
                return None
        except OSError:
            return None
    return Checkpoint(path, manifest)


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
