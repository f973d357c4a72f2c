"""What a `deliver` Job is asked and answers: an adapter copied to `<store>/<digest>`, whole or absent, or removed.

The question is one environment variable of the Job, the answer its termination message.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.canonical import sha256_of
from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import Digest, Uri
from largeforge.api.messages import fitted
from largeforge.api.model import StrictModel

WeightDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DeliverConfig(StrictModel):
    """The question."""

    action: Literal["Deliver", "Remove"] = "Deliver"
    """Remove takes away the folder `target_name` in `target_path`, and nothing that has another digest."""
    digest: WeightDigest
    """SHA-256 over the weights, as the inspection found it: what is there must have it."""
    field: str
    """The field that names the source, for example `spec.artifact.uri`, or the folder to remove."""
    source_uri: str = ""
    """What is copied."""
    source_path: str = ""
    """Its folder in the container (read-only)."""
    target_uri: str
    """The folder that is made or removed: `<store>/<digest>`."""
    target_path: str
    """The folder that it lies in, in the container (writable)."""
    target_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._=+-]*$")]
    """Its name there."""

    @property
    def request(self) -> str:
        """SHA-256 of the question; fields that have their default do not count."""
        return sha256_of(self.model_dump(mode="json", by_alias=True, exclude_defaults=True))


class DeliverResult(StrictModel):
    """The answer."""

    outcome: Literal["Succeeded", "Failed"]
    request: Digest
    """The question; the operator takes no answer to another."""
    uri: Uri = ""
    """The folder that is there, whole; or that is gone."""
    size_bytes: int = 0
    """The bytes of its files."""
    adopted: bool = False
    """Whether it was so already."""
    error: ErrorDetail | None = None
    """Why it is not so."""

    def message(self) -> str:
        """The JSON for the termination message."""
        return fitted(self, _shorter)


def _shorter(result: DeliverResult) -> DeliverResult | None:
    error = result.error
    if error is None or not error.message:
        return None
    shorter = error.model_copy(update={"message": error.message[: len(error.message) // 2]})
    return result.model_copy(update={"error": shorter})
