"""Safetensors files: which there are, whether they are whole, and their digest. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 4 << 20
_MAX_HEADER = 100 << 20
"""The library's own limit of a safetensors header."""


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


def damage(path: Path) -> str | None:
    """Why *path* is no whole safetensors file, or None: the header says how long the file must be."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_MAX_HEADER, size):
                return "is not a safetensors file, or cut short"
            header = json.loads(file.read(length))
        end = max(
            (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"),
            default=0,
        )
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is not a safetensors file"
    if 8 + length + end != size:
        return f"is cut short or damaged: {size} bytes, its header speaks of {8 + length + end}"
    return None
