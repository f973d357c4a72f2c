"""Keys that operator and router compute alike, so that neither needs the right to read a Secret."""

from __future__ import annotations

import hashlib
import hmac


def engine_key(namespace_key: bytes, service_uid: str) -> str:
    """The API key of one InferenceService's engine: HMAC-SHA256 of `engine/<uid>` under the namespace's key, in hex."""
    return hmac.new(namespace_key, f"engine/{service_uid}".encode(), hashlib.sha256).hexdigest()


def report_token(namespace_key: bytes) -> str:
    """What opens `GET /report` of the namespace's routers: HMAC-SHA256 of `report`, in hex."""
    return hmac.new(namespace_key, b"report", hashlib.sha256).hexdigest()


def digest8(text: str) -> str:
    """The first 8 hex digits of SHA-256, for names that must change with a value."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
