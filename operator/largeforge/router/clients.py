"""The clients' keys: a directory of one file for each client, as a Secret is mounted."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

MIN_KEY_CHARACTERS = 16

Fingerprint = tuple[tuple[str, int, int, int], ...]


class Clients:
    """Who may ask. Keys are held as digests under a secret of this process, so a look-up tells nothing of them."""

    def __init__(self, keys: Mapping[str, Sequence[str]]) -> None:
        self._secret = secrets.token_bytes(32)
        self._names: dict[bytes, tuple[bytes, str]] = {}
        self.problems: list[str] = []
        """What was refused, and whose it is; never the key."""
        owners: dict[str, set[str]] = {}
        for client, lines in sorted(keys.items()):
            for line in lines:
                owners.setdefault(line, set()).add(client)
        for key, clients in owners.items():
            names = ", ".join(sorted(clients))
            if len(key) < MIN_KEY_CHARACTERS:
                self.problems.append(
                    f"client {names}: a key has {len(key)} characters and is refused;"
                    f" write one of at least {MIN_KEY_CHARACTERS}"
                )
            elif len(clients) > 1:
                self.problems.append(f"clients {names}: hold the same key, which is refused; give each its own")
            else:
                digest = self._digest(key.encode())
                self._names[digest] = (digest, names)

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, authorization: bytes) -> str | None:
        """The client whose key stands in the header's value, if any."""
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        digest = self._digest(key.strip())
        expected, name = self._names.get(digest, (b"", ""))
        return name if hmac.compare_digest(digest, expected) else None

    def _digest(self, key: bytes) -> bytes:
        return hashlib.sha256(self._secret + key).digest()


def read(directory: Path) -> dict[str, list[str]]:
    """Each client's keys; a directory that is missing has none."""
    return {entry.name: _lines(entry) for entry in _entries(directory)}


def fingerprint(directory: Path) -> Fingerprint:
    """Differs when a file was added, removed or written."""
    found = []
    for entry in _entries(directory):
        status = entry.stat()
        found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _entries(directory: Path) -> list[Path]:
    """The clients' files; a Secret's mount has folders beside them, whose names begin with dots."""
    if not directory.is_dir():
        return []
    return sorted(entry for entry in directory.iterdir() if not entry.name.startswith(".") and entry.is_file())


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
