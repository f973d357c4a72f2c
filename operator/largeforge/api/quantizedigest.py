"""The digests of a QuantizeJob: what decides a run's result, and what decides the result of one method."""

from __future__ import annotations

from typing import Any

from largeforge.api.canonical import sha256_of
from largeforge.api.digest import digests_by_path
from largeforge.api.quantizejob import CALIBRATED, GROUPED, QuantizeJobSpec

DECIDING_FIELDS = ("source", "methods", "engine", "scheme", "calibration", "output")


def run_digest(spec: QuantizeJobSpec) -> str:
    """SHA-256, in hex, over canonical JSON of the deciding fields with defaults left out.

    Of the quality gate only the held-out text decides: thresholds are compared with the recorded figures. Of `compute`
    only whether there is a GPU: it does other arithmetic than a CPU.
    """
    return sha256_of(_deciding(spec))


def field_digests(spec: QuantizeJobSpec) -> dict[str, str]:
    """The first 8 hex digits of SHA-256 over each deciding field that is set, by its path below `spec`."""
    return digests_by_path(_deciding(spec))


def method_digest(spec: QuantizeJobSpec, method: str) -> str:
    """SHA-256, in hex, over what decides the result of *method* beside source and data: the name of its folder.

    The other methods of the list are not part of it, so that a run with a longer list finds what an earlier one made.
    """
    chosen: dict[str, Any] = {
        "method": method,
        "engine": spec.engine,
        "ignore": sorted(spec.scheme.ignore),
        "onCpu": spec.compute.gpus_per_node == 0,
    }
    if method in GROUPED:
        chosen |= {"groupSize": spec.group_size(method), "symmetric": spec.symmetric(method)}
    if method in CALIBRATED and spec.calibration is not None:
        # Which samples are taken, and their tokens, is in the digest of the data.
        chosen["maxLength"] = spec.calibration.max_length
    return sha256_of(chosen)


def _deciding(spec: QuantizeJobSpec) -> dict[str, Any]:
    chosen: dict[str, Any] = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include=set(DECIDING_FIELDS)
    )
    if spec.quality_gate.dataset is not None:
        held_out = spec.quality_gate.dataset.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        chosen["qualityGate"] = {"dataset": held_out}
    if spec.compute.gpus_per_node == 0:
        chosen["compute"] = {"gpusPerNode": 0}
    # How a source is reached, and who may, does not change what it is.
    sources = [chosen["source"], *chosen.get("calibration", {}).get("datasets", [])]
    for source in (*sources, chosen.get("qualityGate", {}).get("dataset", {})):
        source.pop("secretRef", None)
    _leave_out_written_defaults(chosen, spec)
    return {name: value for name, value in chosen.items() if value != {}}


def _leave_out_written_defaults(chosen: dict[str, Any], spec: QuantizeJobSpec) -> None:
    """Take out of *chosen* what says the same as leaving it out, of the fields whose default is none of the schema."""
    scheme, grouped = chosen.get("scheme", {}), [m for m in spec.methods if m in GROUPED]
    plain = spec.model_copy(update={"scheme": spec.scheme.model_copy(update={"group_size": None, "symmetric": None})})
    if [spec.group_size(m) for m in grouped] == [plain.group_size(m) for m in grouped]:
        scheme.pop("groupSize", None)
    if [spec.symmetric(m) for m in grouped] == [plain.symmetric(m) for m in grouped]:
        scheme.pop("symmetric", None)
