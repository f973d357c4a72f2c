"""The digest of a run: what decides its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from largeforge.api.finetunejob import FineTuneJobSpec

DECIDING_FIELDS = ("method", "base", "peft", "datasets", "eval_split_ratio", "training", "output")
COMPUTE_SHAPE = ("gpus_per_node", "processes_per_node")
"""Of `compute`, only the shape decides: resources and placement do not change what is learnt."""


def run_digest(spec: FineTuneJobSpec) -> str:
    """SHA-256, in hex, over canonical JSON of the deciding fields with defaults left out.

    Defaults are left out so that a new field, or an API server that fills one in, starts no run.
    """
    chosen: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include=set(DECIDING_FIELDS)
    )
    shape = spec.compute.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(COMPUTE_SHAPE))
    if shape:
        chosen["compute"] = shape
    canonical = json.dumps(chosen, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
