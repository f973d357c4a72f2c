"""What a training pod needs to post its progress: where to, whom to trust, and a token of its own."""

from __future__ import annotations

from dataclasses import dataclass

from largeforge.api.run import PROGRESS_AUDIENCE, PROGRESS_CA_FILE, PROGRESS_TOKEN_FILE, PROGRESS_URL, TOKEN_DIR
from largeforge.resources.pods import Manifest

TOKEN_SECONDS = 3600
"""Life of a token; the kubelet renews it at four fifths, and the pod's end makes it void at once."""


@dataclass(frozen=True, slots=True)
class ProgressTarget:
    """Where progress is posted to."""

    url: str
    ca: str
    """The certificate (PEM) of the CA that vouches for it."""


def progress_env(target: ProgressTarget | None) -> list[Manifest]:
    """The trainer's variables; none where nobody listens."""
    return [{"name": PROGRESS_URL, "value": target.url}] if target else []


def progress_data(target: ProgressTarget | None) -> dict[str, str]:
    """The entries of the run's ConfigMap, beside the configuration."""
    return {PROGRESS_CA_FILE: target.ca} if target else {}


def progress_volumes(target: ProgressTarget | None) -> tuple[list[Manifest], list[Manifest]]:
    """Volume and mount of the token. Its audience is ours alone: the API server takes it for nothing."""
    if target is None:
        return [], []
    token = {
        "audience": PROGRESS_AUDIENCE,
        "expirationSeconds": TOKEN_SECONDS,
        "path": PROGRESS_TOKEN_FILE.removeprefix(f"{TOKEN_DIR}/"),
    }
    return (
        [{"name": "progress-token", "projected": {"sources": [{"serviceAccountToken": token}]}}],
        [{"name": "progress-token", "mountPath": TOKEN_DIR, "readOnly": True}],
    )
