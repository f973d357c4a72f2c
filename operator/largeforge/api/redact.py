"""What stands before every text that comes from a container or a library, on its way into status, events and logs."""

from __future__ import annotations

import re
from typing import Any

TEXT_LIMIT = 1024

_SECRETS = (
    # The user part and the query of a URL.
    (re.compile(r"([a-z][a-z0-9+.-]{0,15}://)[^/\s@]+@", re.IGNORECASE), r"\1***@"),
    (re.compile(r"([a-z][a-z0-9+.-]{0,15}://[^\s?#]+)\?[^\s'\"]+", re.IGNORECASE), r"\1?***"),
    # `token=…`, `"api_key": "…"`, `password: …`
    (
        re.compile(
            r"(?<![\w-])([\w-]*(?:token|secret|password|passwd|api[_-]?key|authorization)[\"']?\s*[:=]\s*[\"']?)"
            r"(?:(?:bearer|basic)\s+)?(?!\*\*\*)[^\s\"',;]{4,}",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    # Tokens known by their shape: Hugging Face, OpenAI, GitHub, GitLab, AWS, JWT.
    (re.compile(r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-)[A-Za-z0-9_-]{12,}"), "***"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), "***"),
    (re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), "***"),
)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def redact(text: str, *, limit: int = TEXT_LIMIT) -> str:
    """*text* on one line, without what looks like a credential, at most *limit* characters long."""
    text = text[: 4 * limit]  # patterns may take the square of the length, and a container may say very much
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = _UNPRINTABLE.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def redacted(value: Any, *, limit: int = TEXT_LIMIT) -> Any:
    """*value* of JSON with each text redacted; how many there are is for its model to bound."""
    if isinstance(value, str):
        return redact(value, limit=limit)
    if isinstance(value, list):
        return [redacted(item, limit=limit) for item in value]
    return {key: redacted(item, limit=limit) for key, item in value.items()} if isinstance(value, dict) else value
