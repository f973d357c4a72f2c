"""The artifact's folder: its name, a whole one that is there already, and the writing of a new one. Needs no torch.

A folder is written beside its place under a name that begins with a dot, and renamed when all of it is on the disk; so
what has the name is whole, whenever the pod was killed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from largeforge.api.run import RESULT_FILE, AdapterSource, ModelSource, RunResult
from largeforge.jobs import weights

_DIRECTORY_MODE = 0o2775
"""The group keeps the claim's group, and may write: the engine reads as another pod of the same group."""
_FILE_MODE = 0o664


def folder_name(job: str, *, run_digest: str, data_digest: str, base_digest: str) -> str:
    """`<job>-<12 hex>`: other data or another base at the same address is another artifact."""
    return named(job, run_digest, data_digest, base_digest)


def named(job: str, *parts: str) -> str:
    """`<job>-<12 hex>` of a hash over *parts*."""
    sha = hashlib.sha256("\n".join(parts).encode())
    return f"{job}-{sha.hexdigest()[:12]}"


def base_identity(base: ModelSource, folder: Path, adapter: AdapterSource | None) -> str:
    """What stands for the weights that a run begins with: the base's commit or digest, and the adapter's digest.

    Preflight has found the base's; where nobody has, as in a bare call for a trial, the files in *folder* are read.
    """
    known = base.commit or base.digest or weights.digest(weights.safetensors_files(folder))
    if adapter is None:
        return known
    digest = weights.digest(weights.safetensors_files(Path(adapter.path)))
    return hashlib.sha256(f"{known}\n{digest}".encode()).hexdigest()


def find_whole(target: Path, *, run_digest: str) -> RunResult | None:
    """The result of an earlier attempt whose artifact in *target* is whole, marked as adopted; else None."""
    try:
        result = RunResult.model_validate_json((target / RESULT_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if result.outcome != "Succeeded" or result.run_digest != run_digest or result.artifact is None:
        return None
    if weights.digest(weights.safetensors_files(target)) != result.artifact.digest:
        return None
    return result.model_copy(update={"adopted": True})


def clear_leftovers(target: Path) -> list[str]:
    """Remove what killed attempts left beside *target*, and put a damaged *target* out of the way; return the names."""
    damaged = target.with_name(f".{target.name}.damaged")
    removed = []
    for leftover in sorted(target.parent.glob(f".{target.name}.*")):
        if leftover.is_dir() and not leftover.is_symlink() and leftover != damaged:
            shutil.rmtree(leftover)
            removed.append(leftover.name)
    if target.exists():
        shutil.rmtree(damaged, ignore_errors=True)
        target.rename(damaged)
        removed.append(f"{target.name} (damaged, kept as {damaged.name})")
    return removed


def write(target: Path, fill: Callable[[Path], RunResult], *, attempt: str) -> RunResult:
    """Write the artifact: *fill* writes the files into a folder and returns the result, which is written last.

    *attempt* tells this attempt's folder from another's. Where another attempt was faster, its artifact stays.
    """
    results = []

    def whole(folder: Path) -> None:
        result = fill(folder)
        (folder / RESULT_FILE).write_text(result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
        results.append(result)

    if place(target, whole, attempt=attempt):
        return results[0]
    found = find_whole(target, run_digest=results[0].run_digest)
    if found is None:
        raise FileExistsError(errno.EEXIST, "another attempt has written there, and not the same", target.name)
    return found


def place(target: Path, fill: Callable[[Path], None], *, attempt: str) -> bool:
    """Let *fill* write into a folder beside *target* and rename it there: the rename makes all of it visible at once.

    False where another attempt was faster; what it wrote stays.
    """
    aside = target.with_name(f".{target.name}.{attempt}")
    aside.mkdir(parents=True)
    fill(aside)
    settle(aside)
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(aside)
        return False
    sync(target.parent)
    return True


def size(folder: Path) -> int:
    """The bytes of the files in *folder*, without the result that names this number."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != RESULT_FILE)


def copy_files(names: tuple[str, ...], *, source: Path, to: Path, root: Path | None = None) -> None:
    """Copy those of *names* that *source* has; a link that leads out of *root*, by default *source*, is not followed.

    A model in the hub's cache is a folder of links into the folder `blobs` of its repository.
    """
    root = (root or source).resolve()
    for name in names:
        path = (source / name).resolve()
        if path.is_file() and path.is_relative_to(root):
            shutil.copyfile(path, to / name)


def settle(folder: Path) -> None:
    """Open *folder* to its group and bring all of it to the disk; some libraries write with mode 0600."""
    for path in sorted(folder.rglob("*")):
        path.chmod(_DIRECTORY_MODE if path.is_dir() else _FILE_MODE)
        sync(path)
    folder.chmod(_DIRECTORY_MODE)
    sync(folder)


def sync(path: Path) -> None:
    """Bring the file or folder *path* to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
