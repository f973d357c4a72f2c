"""The embeddings of examples by their text, kept in a file between one learning and the next.

A file of another model, or one that is broken, counts as none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from largeforge.router.embedding import Embedder, digest
from largeforge.router.terms import Floats

_KEY = np.dtype("S16")


class EmbedCache:
    """An `Embed` that computes only what the file does not have."""

    def __init__(self, path: Path, model: Path) -> None:
        self._path = path
        self._model = model
        self._digest = digest(model)
        self._known = _read(path, self._digest)
        self.computed = 0

    def __call__(self, texts: Sequence[str]) -> Floats:
        """A row for each of *texts*; afterwards the file has these and no others."""
        keys = [_key(text) for text in texts]
        missing = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in self._known]
        if missing:
            embedder = Embedder(self._model)
            self._known |= {key: embedder.one(text) for key, text in missing}
        self.computed += len(missing)
        found = np.array([self._known[key] for key in keys], dtype=np.float32)
        if missing or len(self._known) > len(set(keys)):
            _write(self._path, self._digest, keys, found)
        return found


def _key(text: str) -> bytes:
    # Without its last byte: numpy's fixed strings drop zeros at their ends.
    return hashlib.blake2b(text.encode(), digest_size=15).digest() + b"\1"


def _read(path: Path, digest: str) -> dict[bytes, Floats]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            if found["digest"].item() != digest:
                return {}
            keys: npt.NDArray[np.bytes_] = found["keys"]
            return dict(zip(keys.tolist(), found["rows"], strict=True))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _write(path: Path, digest: str, keys: Iterable[bytes], rows: Floats) -> None:
    aside = path.with_name(f"{path.name}.new")
    with aside.open("wb") as file:
        np.savez(file, digest=np.array(digest), keys=np.array([*keys], dtype=_KEY), rows=rows)
    aside.replace(path)
