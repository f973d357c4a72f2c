"""The digest of a run: what decides its result, and nothing else."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from largeforge.api.canonical import sha256_of
from largeforge.api.finetunejob import FineTuneJobSpec
from largeforge.api.training import (
    ALL_LINEAR,
    DEFAULT_GLOBAL_BATCH_SIZE,
    DEFAULT_LEARNING_RATE,
    DEFAULT_LORA_DROPOUT,
    DEFAULT_LORA_RANK,
    DEFAULT_TRAIN_EPOCHS,
)

DECIDING_FIELDS = (
    "method",
    "base",
    "peft",
    "datasets",
    "eval_dataset",
    "eval_split_ratio",
    "data_policy",
    "training",
    "extra_args",
    "output",
)
COMPUTE_SHAPE = ("nodes", "gpus_per_node", "processes_per_node", "strategy", "fsdp")
"""Of `compute`, only the shape decides: resources and placement do not change what is learnt."""


def run_digest(spec: FineTuneJobSpec) -> str:
    """SHA-256, in hex, over canonical JSON of the deciding fields with defaults left out.

    Defaults are left out so that a new field, or an API server that fills one in, starts no run.
    """
    return sha256_of(_deciding(spec))


def field_digests(spec: FineTuneJobSpec) -> dict[str, str]:
    """The first 8 hex digits of SHA-256 over each deciding field that is set, by its path below `spec`.

    Objects are told apart by their fields (`training.maxSteps`), lists and `extraArgs` are one field each.
    """
    return digests_by_path(_deciding(spec), whole={"extraArgs"})


def digests_by_path(deciding: Mapping[str, Any], *, whole: Container[str] = ()) -> dict[str, str]:
    """The same of any deciding fields; objects named in *whole* are one field each."""
    found: dict[str, str] = {}
    for name, value in deciding.items():
        parts = value if isinstance(value, dict) and name not in whole else None
        for path, part in {f"{name}.{k}": v for k, v in parts.items()}.items() if parts else [(name, value)]:
            found[path] = sha256_of(part)[:8]
    return found


def changed_fields(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The paths in which two results of `field_digests` differ, as the user writes them."""
    return sorted(f"spec.{path}" for path in before.keys() | after.keys() if before.get(path) != after.get(path))


def _deciding(spec: FineTuneJobSpec) -> dict[str, Any]:
    chosen: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include=set(DECIDING_FIELDS)
    )
    shape = spec.compute.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(COMPUTE_SHAPE))
    if shape:
        chosen["compute"] = shape
    if spec.gate is not None and spec.gate.compare_with is not None:
        chosen["gate"] = {"compareWith": spec.gate.compare_with}
    if "base" in chosen:  # how it is reached, and who may, does not change what it is
        chosen["base"].pop("secretRef", None)
    for source in (*chosen.get("datasets", []), chosen.get("evalDataset", {})):
        source.pop("secretRef", None)
    _leave_out_written_defaults(chosen, spec)
    return {name: value for name, value in chosen.items() if value != {}}


def _leave_out_written_defaults(chosen: dict[str, Any], spec: FineTuneJobSpec) -> None:
    """Take out of *chosen* what says the same as leaving it out, of the fields whose default is none of the schema."""
    peft, training, compute = (chosen.get(name, {}) for name in ("peft", "training", "compute"))
    defaults: list[tuple[dict[str, Any], str, Any]] = [
        (peft, "r", DEFAULT_LORA_RANK),
        (peft, "loraAlpha", 2 * spec.peft.rank),
        (peft, "loraDropout", DEFAULT_LORA_DROPOUT),
        (peft, "targetModules", [ALL_LINEAR]),
        (training, "numTrainEpochs", DEFAULT_TRAIN_EPOCHS),
        (training, "globalBatchSize", DEFAULT_GLOBAL_BATCH_SIZE),
        (training, "gradientAccumulationSteps", 1),
        (training, "learningRate", DEFAULT_LEARNING_RATE[spec.peft.type]),
        (compute, "fsdp", {}),
        *((source, "weight", 1) for source in chosen.get("datasets", [])),
    ]
    for part, name, default in defaults:
        if part.get(name) == default:
            del part[name]
