"""A folder of a user's, read without following its links: one could lead to another team's files, or to the pod's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.jobs.artifacterrors import (
    ArtifactNotFoundError,
    FolderTooDeepError,
    NotAModelError,
    NotAnAdapterError,
    NotReadableError,
    StoreError,
    SymlinkRefusedError,
    WeightsDamagedError,
)
from largeforge.jobs.errors import RunError
from largeforge.jobs.weights import HeaderError, Tensor, tensors

MAX_DEPTH = 8
MAX_FILES = 10_000
"""More than an artifact has with its checkpoints' TensorBoard files; less than would keep a Job busy for long."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_JSON = 256 << 20
"""Bytes of a JSON file; the largest tokenizers have 40 MB."""
_LINK = "is a symbolic link, and none is followed; copy the files themselves, for example with cp -rL"


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a model or an adapter."""

    path: Path
    uri: str
    """For messages."""
    field: str
    wrong_kind: type[NotAModelError | NotAnAdapterError] = NotAModelError
    """The error for a file that is not what it should be."""
    root: Path | None = None
    """Links are followed to below this folder: the hub's cache is a folder of links into its `blobs`."""

    def wrong(self, text: str, kind: type[RunError] | None = None) -> RunError:
        """The error, by default that the folder is none of the kind."""
        return (kind or self.wrong_kind)(f"{self.uri}: {text}", field=self.field)

    def names(self) -> dict[str, int]:
        """The files at the top with their sizes, without hidden ones; links are among them only where they count."""
        with self.reading():
            if not self.path.is_dir():
                said = "is a file" if self.path.exists() else "there is no such folder"
                raise self.wrong(f"{said}; name the folder that holds the files", ArtifactNotFoundError)
            with os.scandir(self.path) as entries:
                found = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        if not found:
            raise self.wrong(
                "the folder is empty, or was not there; copy the files there, or correct the uri", ArtifactNotFoundError
            )
        return {name: size for name in found if (size := self._size(name)) is not None}

    def file(self, name: str) -> Path:
        """The file *name*, which is no link."""
        path = self.path / name
        with self.reading(name):
            mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and not self._leads_inside(path):
            raise self.wrong(f"{name} {_LINK}", SymlinkRefusedError)
        if not stat.S_ISREG(path.stat().st_mode):
            raise self.wrong(f"{name} is no file; put one there, or remove it")
        return path

    def bytes(self, name: str) -> bytes:
        """The content of the small file *name*."""
        path = self.file(name)
        with self.reading(name):
            if path.stat().st_size > _MAX_JSON:
                raise self.wrong(f"{name} is longer than {_MAX_JSON >> 20} MiB; copy it again")
            return path.read_bytes()

    def json(self, name: str) -> dict[str, Any]:
        """The object in the file *name*."""
        try:
            value = json.loads(self.bytes(name))
        except (ValueError, RecursionError):
            raise self.wrong(f"{name} cannot be read as JSON; copy it again") from None
        if not isinstance(value, dict):
            raise self.wrong(f"{name} is no JSON object; copy it again")
        return value

    def tensors(self, name: str) -> list[Tensor]:
        """What is in the safetensors file *name*, which is whole."""
        path = self.file(name)
        try:
            with self.reading(name):
                return tensors(path)
        except HeaderError as error:
            raise self.wrong(f"{name} {error}; copy it again", WeightsDamagedError) from None

    @contextmanager
    def reading(self, name: str = "") -> Iterator[None]:
        """Say in words what the file system refuses."""
        file = f"{name} " if name else ""
        try:
            yield
        except FileNotFoundError:
            raise self.wrong(f"{file}is not there any more; copy it again", ArtifactNotFoundError) from None
        except PermissionError:
            raise self.wrong(
                f"{file}may not be read by group 2000; chgrp -R 2000 and chmod -R g+rX the folder", NotReadableError
            ) from None
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise self.wrong(f"{file}cannot be read ({said}); see the claim's storage", StoreError) from None

    def _size(self, name: str) -> int | None:
        """The size of the file *name*, or None where it is none."""
        with self.reading(name):
            found = (self.path / name).lstat()
            if stat.S_ISLNK(found.st_mode) and self._leads_inside(self.path / name):
                found = (self.path / name).stat()
        return None if stat.S_ISDIR(found.st_mode) else found.st_size

    def _leads_inside(self, path: Path) -> bool:
        return self.root is not None and path.resolve().is_relative_to(self.root.resolve())


def tree(folder: Folder) -> list[tuple[str, int]]:
    """All files below *folder* by name, with their sizes: no hidden ones and no pickles; a link is an error."""
    found: list[tuple[str, int]] = []
    _walk(folder, "", 1, found)
    return sorted(found)


def _walk(folder: Folder, above: str, depth: int, found: list[tuple[str, int]]) -> None:
    with folder.reading(above.rstrip("/")), os.scandir(folder.path / above) as entries:
        inside = sorted(
            (entry.name, entry.stat(follow_symlinks=False)) for entry in entries if not entry.name.startswith(".")
        )
    for name, status in inside:
        path = f"{above}{name}"
        if stat.S_ISDIR(status.st_mode):
            if depth == MAX_DEPTH:
                raise folder.wrong(
                    f"{path} lies more than {MAX_DEPTH} levels down; name the folder that holds the weights",
                    FolderTooDeepError,
                )
            _walk(folder, f"{path}/", depth + 1, found)
        elif stat.S_ISLNK(status.st_mode):
            raise folder.wrong(f"{path} {_LINK}", SymlinkRefusedError)
        elif not stat.S_ISREG(status.st_mode):
            raise folder.wrong(f"{path} is no file; remove it", SymlinkRefusedError)
        elif not name.endswith(PICKLES):
            found.append((path, status.st_size))
    if len(found) > MAX_FILES:
        raise folder.wrong(
            f"has more than {MAX_FILES} files; name the folder that holds the weights", FolderTooDeepError
        )
