"""What the run that made an artifact wrote beside it, if the files are still those that it wrote."""

from __future__ import annotations

from collections.abc import Container

from largeforge.api.inspect import Provenance
from largeforge.api.run import MAIN_METRICS, RESULT_FILE, RunResult
from largeforge.jobs.errors import RunError
from largeforge.jobs.folders import Folder


def provenance(folder: Folder, names: Container[str], *, digest: str) -> Provenance | None:
    """The record in *folder*, if it names *digest*, that of the weights; a file of another make is passed over."""
    if RESULT_FILE not in names:
        return None
    try:
        result = RunResult.model_validate_json(folder.bytes(RESULT_FILE))
    except (ValueError, RunError):
        return None
    artifact = result.artifact
    if result.outcome != "Succeeded" or artifact is None or artifact.digest != digest:
        return None
    return Provenance(
        run_digest=result.run_digest,
        base=artifact.base,
        base_commit=artifact.base_commit,
        base_digest=result.sources.base_digest or None if result.sources is not None else None,
        dataset_digest=result.dataset.digest if result.dataset is not None else None,
        probes=artifact.probes,
        metrics=[metric for metric in result.metrics if metric.name in MAIN_METRICS],
        versions=result.facts.versions if result.facts is not None else [],
    )
