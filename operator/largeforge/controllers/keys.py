"""The installation's keys, all derived from one: nobody needs the right to read a Secret."""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def new_master_key() -> bytes:
    """A fresh master key; made once for an installation."""
    return secrets.token_bytes(KEY_BYTES)


def new_client_key() -> str:
    """A fresh key for a client of the router, as text that a header can carry."""
    return "lf-" + secrets.token_urlsafe(KEY_BYTES)


def namespace_key(master_key: bytes, namespace: str) -> bytes:
    """The key of *namespace*: HKDF-SHA256 of the master key, info `namespace/<ns>`. Its router mounts it."""
    return _derived(master_key, f"namespace/{namespace}")


def progress_ca_seed(master_key: bytes) -> bytes:
    """The Ed25519 seed of the progress endpoint's CA: as above, info `progress-ca`."""
    return _derived(master_key, "progress-ca")


def read_master_key(path: Path) -> bytes:
    """The mounted master key; a `ValueError` says what is wrong with the file."""
    try:
        master_key = path.read_bytes()
    except OSError as exc:
        raise ValueError(f"{exc.strerror}: {path}") from exc
    if len(master_key) != KEY_BYTES:
        raise ValueError(f"{path} has {len(master_key)} bytes, not {KEY_BYTES}")
    return master_key


def _derived(master_key: bytes, label: str) -> bytes:
    if len(master_key) != KEY_BYTES:
        raise ValueError(f"the master key has {len(master_key)} bytes, not {KEY_BYTES}")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label.encode()).derive(master_key)
