"""The spec of a FineTuneJob, as the tests of the models need it."""

from __future__ import annotations

from typing import Any

from largeforge.api.finetunejob import FineTuneJobSpec


def spec(**changes: Any) -> FineTuneJobSpec:
    """A small one with *changes*, in the words of the manifest."""
    fields: dict[str, Any] = {
        "method": "SFT",
        "base": {"uri": "pvc://models/base"},
        "datasets": [{"uri": "pvc://data/train.jsonl"}],
        "output": {"uri": "pvc://models/out"},
    }
    return FineTuneJobSpec.model_validate(fields | changes)
