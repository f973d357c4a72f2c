"""The whole preflight report, a JSON file beside the artifact: what status has no room for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from largeforge.api.finetunejobstatus import DatasetSummary
from largeforge.api.run import RunConfig
from largeforge.jobs.examine import Findings, Found

_DIGEST_DIGITS = 12
_PERCENTILES = (1, 25, 50, 75, 90, 95, 99)


def file_name(config: RunConfig) -> str:
    """`<job>-<first 12 of the run's digest>-preflight.json`."""
    return f"{config.job}-{config.digest[:_DIGEST_DIGITS]}-preflight.json"


def content(config: RunConfig, findings: Findings, summary: DatasetSummary, warnings: list[str]) -> dict[str, Any]:
    """The report; no content of a row is in it."""
    return {
        "job": config.job,
        "run": config.run,
        "runDigest": config.digest,
        "summary": summary.model_dump(mode="json", by_alias=True, exclude_none=True),
        "maxLength": findings.limit,
        "datasets": [_dataset(found) for found in findings.all],
        "tokens": {"train": _tokens(findings.lengths), "eval": _tokens(findings.eval_lengths)},
        "warnings": warnings,
        "problems": [str(bad) for bad in findings.problems],
        "tooLong": [
            {"file": entry.file.uri, "line": entry.line, "tokens": tokens} for entry, tokens in findings.too_long
        ],
    }


def _dataset(found: Found) -> dict[str, Any]:
    spec = found.source.spec
    return {
        "uri": spec.uri,
        "commit": spec.commit,
        "format": found.source.convert.format,
        "becomes": found.source.kind,
        "files": len(found.source.files),
        "weight": spec.weight,
        "rows": found.rows,
        "invalid": found.invalid,
        "emptyAnswers": found.empty_answers,
        "tooLong": found.too_long,
        "kept": found.kept,
        "longestTokens": found.longest,
    }


def _tokens(lengths: Any) -> dict[str, Any]:
    """Sum, percentiles, and how many rows have at most 16, 32, 64 … tokens."""
    import numpy as np

    there = lengths[lengths > 0]
    if not len(there):
        return {"rows": 0, "tokens": 0}
    edges = [1 << power for power in range(4, int(there.max() - 1).bit_length() + 1)] or [16]
    counts, _ = np.histogram(there, bins=[0, *(edge + 0.5 for edge in edges)])
    return {
        "rows": len(there),
        "tokens": int(there.sum()),
        "percentiles": {f"p{p}": int(np.percentile(there, p)) for p in _PERCENTILES},
        "histogram": {f"to{edge}": int(count) for edge, count in zip(edges, counts, strict=True)},
    }


def write(path: Path, report: dict[str, Any]) -> None:
    """Write *report* so that whoever sees the file sees all of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(report, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
