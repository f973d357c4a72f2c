"""Safetensors files: which there are, whether they are whole, what is in them, and their digest. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

_CHUNK = 4 << 20
MAX_HEADER = 100 << 20
"""The library's own limit of a safetensors header."""
LENGTH_BYTES = 8
"""The length of the header stands before it."""


class HeaderError(Exception):
    """It is no whole safetensors file; the text goes on after the file's name."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, as the header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Its first byte, counted from the end of the header."""
    end: int

    @property
    def count(self) -> int:
        """Its numbers; of packed ones, what they are packed into."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of *folder*, by name."""
    return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def digest(files: Sequence[Path]) -> str:
    """SHA-256 over the bytes of *files* one after the other: what `cat FILES | sha256sum` prints."""
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
    return sha.hexdigest()


def tensors(path: Path) -> list[Tensor]:
    """What is in *path*; a `HeaderError` where it is no whole file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = header_length(file.read(LENGTH_BYTES), size)
        return parsed(file.read(length), size=size)


def header_length(start: bytes, size: int) -> int:
    """The length of the header of a file of *size* bytes that begins with *start*."""
    if len(start) < LENGTH_BYTES:
        raise HeaderError("is not a safetensors file")
    (length,) = struct.unpack("<Q", start[:LENGTH_BYTES])
    if length > min(MAX_HEADER, size):
        raise HeaderError("is not a safetensors file, or cut short")
    return int(length)


def parsed(header: bytes, *, size: int) -> list[Tensor]:
    """The tensors that *header* describes, by their place in a file of *size* bytes."""
    try:
        entries: dict[str, Any] = json.loads(header)
        found = sorted(
            (_tensor(name, entry) for name, entry in entries.items() if name != "__metadata__"),
            key=lambda tensor: tensor.begin,
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise HeaderError("is not a safetensors file") from None
    end = max((tensor.end for tensor in found), default=0)
    if LENGTH_BYTES + len(header) + end != size:
        raise HeaderError(
            f"is cut short or damaged: {size} bytes, its header speaks of {LENGTH_BYTES + len(header) + end}"
        )
    return found


def damage(path: Path) -> str | None:
    """Why *path* is no whole safetensors file, or None: the header says how long the file must be."""
    try:
        tensors(path)
    except HeaderError as error:
        return str(error)
    return None


def values(path: Path, wanted: Sequence[Tensor]) -> Iterator[tuple[Tensor, bytes]]:
    """The bytes of *wanted* in *path*, a piece at a time, each piece with its tensor."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(LENGTH_BYTES))
        for tensor in wanted:
            file.seek(LENGTH_BYTES + length + tensor.begin)
            left = tensor.size
            while left and (chunk := file.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield tensor, chunk


def _tensor(name: str, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    shape = tuple(int(each) for each in entry["shape"])
    if not 0 <= begin <= end or any(each < 0 for each in shape):
        raise ValueError(name)
    return Tensor(name, str(entry["dtype"]), shape, int(begin), int(end))
