"""An adapter's folder copied into a store under its digest: whole or absent, whoever is killed and however many copy.

It is written beside its place under a name that begins with a dot, brought to the disk, compared with the digest that
is meant, and renamed. Nothing of the user's folder is a link that is followed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from largeforge.jobs import artifact, weights
from largeforge.jobs.artifacterrors import DigestDiffersError, NotAnAdapterError, StoreError, SymlinkRefusedError
from largeforge.jobs.errors import DiskFullError, RunError
from largeforge.jobs.folders import Folder, tree

STALE_SECONDS = 3600
"""A copy that has not grown for so long belongs to nobody; not all file systems that clusters share have locks."""
KEPT_FREE = 64 << 20
"""Bytes that a copy leaves free."""
_CHUNK = 16 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """Where the folder will lie."""

    store: Path
    name: str
    uri: str
    """The folder's."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.store / self.name

    def wrong(self, text: str, kind: type[RunError] = StoreError) -> RunError:
        """An error of the store."""
        return kind(f"{self.uri}: {text}", field="spec.lora.store")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in words what the file system refuses."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.wrong("the store filled up; free space, or use a larger claim", DiskFullError) from None
            if isinstance(error, PermissionError) or error.errno == errno.EROFS:
                raise self.wrong(
                    "the store cannot be written; it must belong to group 2000 or be open to it, and the claim must not"
                    " be read-only"
                ) from None
            raise self.wrong(f"cannot be written ({error.strerror}); see the claim's storage") from None


def held_whole(target: Target, digest: str) -> int | None:
    """The size of what lies whole at *target*, or None."""
    path = target.path
    if path.is_symlink() or not path.is_dir():
        return None
    try:
        files = tree(Folder(path, target.uri, "spec.lora.store", NotAnAdapterError))
    except RunError:
        return None
    if not {"adapter_config.json", "adapter_model.safetensors"} <= {name for name, _ in files}:
        return None
    if weights.digest(weights.safetensors_files(path)) != digest:
        return None
    return sum(size for _, size in files)


def deliver(source: Folder, target: Target, *, digest: str, attempt: str) -> tuple[int, bool]:
    """Bring *source* to *target*; its size, and whether it lay there already.

    *attempt* is this Job's, whose pods never run side by side: what an earlier one left under it belongs to nobody.
    """
    aside = target.store / f".{target.name}.{attempt}"
    with target.writing():
        shutil.rmtree(aside, ignore_errors=True)
        if (size := held_whole(target, digest)) is not None:
            return size, True
    source.names()
    files = tree(source)
    size = sum(each for _, each in files)
    with target.writing():
        aside.mkdir()
    try:
        with target.writing():
            _remove_stale(target, aside)
            _check_room(target, size)
        copied = _copy(source, target, aside, [name for name, _ in files])
        if copied != digest:
            raise source.wrong(
                f"its weights have the digest {copied[:12]}…, and {digest[:12]}… was looked at: somebody writes there;"
                " write a new version into a new folder",
                DigestDiffersError,
            )
        with target.writing():
            artifact.settle(aside)
            return _rename(aside, target, digest, size)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # renamed, it is not there any more


def _copy(source: Folder, target: Target, aside: Path, names: Sequence[str]) -> str:
    """Copy *names*; the digest of the weights as they were written."""
    sha = hashlib.sha256()
    for name in names:
        counted = "/" not in name and name.endswith(".safetensors")
        with _opened(source, name) as descriptor, target.writing():
            into = aside / name
            into.parent.mkdir(parents=True, exist_ok=True)
            with into.open("xb") as out:
                for chunk in _chunks(source, name, descriptor):
                    out.write(chunk)
                    os.utime(aside)  # it goes on
                    if counted:
                        sha.update(chunk)
    return sha.hexdigest()


def _chunks(source: Folder, name: str, descriptor: int) -> Iterator[bytes]:
    while True:
        with source.reading(name):
            chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            return
        yield chunk


@contextmanager
def _opened(source: Folder, name: str) -> Iterator[int]:
    """The file *name* below *source*, opened step by step: no part of its path is a link, whenever one is made."""
    parts = name.split("/")
    with source.reading(name):
        descriptor = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for i, part in enumerate(parts):
            flags = os.O_RDONLY | os.O_NOFOLLOW | (os.O_DIRECTORY if i < len(parts) - 1 else os.O_NONBLOCK)
            following = _step(source, name, part, flags, descriptor)
            os.close(descriptor)
            descriptor = following
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise source.wrong(f"{name} is no file; remove it", SymlinkRefusedError)
        yield descriptor
    finally:
        os.close(descriptor)


def _step(source: Folder, name: str, part: str, flags: int, above: int) -> int:
    with source.reading(name):
        try:
            return os.open(part, flags, dir_fd=above)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise source.wrong(
                    f"{name} became a symbolic link; copy the files again", SymlinkRefusedError
                ) from None
            raise


def _rename(aside: Path, target: Target, digest: str, size: int) -> tuple[int, bool]:
    """Make it visible. Where another was faster its folder stays; what is damaged there makes room."""
    try:
        aside.rename(target.path)
    except OSError:
        if (found := held_whole(target, digest)) is not None:
            return found, True
        _put_away(target)
        aside.rename(target.path)
    artifact.sync(target.store)
    return size, False


def _put_away(target: Target) -> None:
    """Keep what is damaged, or no folder at all, beside its place: somebody wrote it there."""
    damaged = target.store / f".{target.name}.damaged"
    if damaged.is_dir() and not damaged.is_symlink():
        shutil.rmtree(damaged)
    elif os.path.lexists(damaged):
        damaged.unlink()
    target.path.rename(damaged)


def _remove_stale(target: Target, aside: Path) -> None:
    """Remove what killed copies of others left. The times are the storage's own, also that of *aside*, just made."""
    limit, damaged = aside.stat().st_mtime - STALE_SECONDS, f".{target.name}.damaged"
    for leftover in target.store.glob(f".{target.name}.*"):
        if leftover.name != damaged and not leftover.is_symlink() and leftover.is_dir():
            _remove_older(leftover, limit)


def _remove_older(folder: Path, limit: float) -> None:
    try:
        stale = folder.stat().st_mtime < limit
    except FileNotFoundError:  # renamed meanwhile, or removed by another
        return
    if stale:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(target: Target, size: int) -> None:
    free = shutil.disk_usage(target.store).free
    if size + KEPT_FREE > free:
        raise target.wrong(
            f"the adapter has {size / 1e6:.1f} MB, {KEPT_FREE / 1e6:.0f} MB stay free, and the store has"
            f" {free / 1e6:.1f} MB; free space, or use a larger claim",
            DiskFullError,
        )
