from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from largeforge.api.finetunejobstatus import FineTuneJobStatus, ResolvedBase

RUN: dict[str, Any] = {
    "number": 2,
    "digest": "d" * 64,
    "stage": "Training",
    "attempt": 3,
    "failures": 1,
    "resumes": 1,
    "jobName": "sql-r2-a3",
    "startTime": "2026-11-25T12:00:00Z",
    "activeSeconds": 60,
    "base": {"uri": "hf://org/model", "commit": "c" * 40, "secretRef": {"name": "hub-token", "key": "token"}},
    "datasetCommits": ["f" * 40, ""],
    "cached": True,
    "fields": {"training.maxSteps": "0123abcd"},
}
STATUS: dict[str, Any] = {
    "observedGeneration": 3,
    "phase": "Running",
    "conditions": [
        {
            "type": "Running",
            "status": "True",
            "reason": "Running",
            "message": "attempt 3",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-11-25T12:00:00Z",
        }
    ],
    "run": RUN,
    "history": [RUN | {"number": 1, "outcome": "Succeeded", "completionTime": "2026-11-25T11:00:00Z"}],
    "progress": {"percent": 30, "step": 120, "totalSteps": 400, "summary": "30% 120/400", "eta": "12m", "loss": "1.83"},
    "metrics": [{"name": "train_loss", "value": "1.83"}],
    "dataset": {"digest": "e" * 64, "samples": 100, "truncatedRatio": "0.01", "problems": ["line 7: is not JSON"]},
    "checkpoint": {"step": 100, "uri": "pvc://models/x", "resumes": 1, "lostSeconds": 12},
    "gate": {"verdict": "Passed", "results": [{"check": "maxEvalLoss", "value": "1.2", "limit": "2", "passed": True}]},
    "usage": {"gpuSeconds": 3600},
}


def test_a_status_is_written_as_it_was_read():
    read = FineTuneJobStatus.model_validate(STATUS)
    again = FineTuneJobStatus.model_validate(read.manifest())
    assert again == read
    assert read.run is not None
    assert read.run.base == ResolvedBase.model_validate(RUN["base"])
    assert read.run.start_time == datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_what_is_not_known_is_left_out_of_the_manifest():
    assert set(FineTuneJobStatus().manifest()) == {
        "observedGeneration", "phase", "message", "conditions", "base", "history", "metrics"
    }  # fmt: skip
    assert "outcome" not in FineTuneJobStatus.model_validate(STATUS).manifest()["run"]


@pytest.mark.parametrize("part", ["run", "progress", "dataset", "checkpoint", "gate", "usage"])
def test_a_status_of_a_newer_version_is_read_without_what_is_new(part: str):
    newer = STATUS | {part: STATUS[part] | {"fromTheFuture": 1}, "alsoNew": {}}
    assert FineTuneJobStatus.model_validate(newer) == FineTuneJobStatus.model_validate(STATUS)


def test_a_status_of_an_older_version_is_read():
    old_run = {name: RUN[name] for name in ("number", "digest", "attempt", "jobName", "startTime")}
    read = FineTuneJobStatus.model_validate({"observedGeneration": 1, "run": old_run})
    assert read.run is not None
    assert (read.run.stage, read.run.failures, read.run.base) == ("Preflight", 0, None)
