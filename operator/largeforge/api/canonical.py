"""One form of JSON for each value, and its digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sha256_of(value: Any) -> str:
    """SHA-256, in hex, over canonical JSON of *value*: keys sorted, no spaces."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
