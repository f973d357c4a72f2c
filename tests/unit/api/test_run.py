from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from largeforge.api.common import ErrorDetail, Metric
from largeforge.api.finetunejobstatus import (
    ArtifactRecord,
    CheckpointRecord,
    DatasetSummary,
    ProbeRecord,
    RunFacts,
    TokenLogprob,
)
from largeforge.api.messages import TERMINATION_MESSAGE_LIMIT
from largeforge.api.run import MAIN_METRICS, ResolvedSources, RunConfig, RunResult

EXTRA = [Metric(name=f"metric{number}", value="1" * 60) for number in range(60)]
MAIN = [Metric(name=name, value="1.5") for name in sorted(MAIN_METRICS)]
PROBES = [
    ProbeRecord(
        name=name,
        prompt_digest="d" * 64,
        base=[TokenLogprob(id=49152 + i, logprob="-12.345678") for i in range(5)],
        result=[TokenLogprob(id=49152 + i, logprob="-12.345678") for i in range(5)],
    )
    for name in ("greeting", "fact", "task")
]


def artifact(**changes: Any) -> ArtifactRecord:
    fields: dict[str, Any] = {
        "kind": "Adapter",
        "uri": "pvc://models/sql/sql-sft-0123456789ab",
        "digest": "a" * 64,
        "size_bytes": 12_345_678,
        "rank": 16,
        "base": "pvc://models/base",
        "probes": PROBES,
    }
    return ArtifactRecord(**(fields | changes))


def dataset(**changes: Any) -> DatasetSummary:
    fields: dict[str, Any] = {"digest": "e" * 64, "samples": 100_000, "formats": ["Messages"], "tokens": 10**9}
    return DatasetSummary(**(fields | changes))


def succeeded(**changes: Any) -> RunResult:
    fields: dict[str, Any] = {
        "outcome": "Succeeded",
        "run_digest": "d" * 64,
        "dataset": dataset(),
        "artifact": artifact(),
        "metrics": MAIN,
        "checkpoint": CheckpointRecord(step=400, time=datetime(2026, 11, 25, tzinfo=UTC), uri="pvc://models/x"),
        "facts": RunFacts(strategy="DDP", precision="BF16", ranks=2),
    }
    return RunResult(**(fields | changes))


def sent(result: RunResult) -> RunResult:
    """What arrives of *result*."""
    message = result.message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_LIMIT
    return RunResult.model_validate_json(message)


def config() -> dict[str, Any]:
    return {
        "namespace": "team",
        "job": "sql",
        "run": 2,
        "digest": "d" * 64,
        "method": "SFT",
        "base": {"uri": "hf://org/model", "field": "spec.base.uri", "path": None, "tokenEnv": "HUB_TOKEN"},
        "adapter": {"uri": "pvc://models/a", "field": "spec.base.fineTuneJobRef", "path": "/mnt/adapter"},
        "datasets": [
            {
                "uri": "hf://org/rows",
                "field": "spec.datasets[0]",
                "path": None,
                "commit": "c" * 40,
                "columns": {"messages": "chat"},
                "weight": 0.5,
            }
        ],
        "evalDataset": {"uri": "pvc://data/e.jsonl", "field": "spec.evalDataset", "path": "/mnt/datasets/eval/e.jsonl"},
        "evalSplitRatio": 0,
        "dataPolicy": {"mode": "Warn", "maxInvalidRatio": 0.1, "onTooLong": "Drop"},
        "lora": {"r": 16, "loraAlpha": 32, "loraDropout": 0.05, "targetModules": ["all-linear"]},
        "training": {
            "maxSteps": None,
            "numTrainEpochs": 1,
            "learningRate": 2e-4,
            "perDeviceTrainBatchSize": 4,
            "gradientAccumulationSteps": 8,
            "maxLength": 2048,
            "precision": "Auto",
            "seed": 42,
            "earlyStopping": {"patience": 2, "threshold": 0.01},
        },
        "extraArgs": {"neftune_noise_alpha": 5, "optim_args": "a=1", "label_names": ["x"], "nested": {"a": [1, None]}},
        "compute": {"processes": 2, "useCpu": True, "strategy": "FSDP", "cpuOffload": True},
        "cachePath": "/mnt/cache",
        "checkpoint": {
            "path": "/mnt/checkpoints",
            "uri": "pvc://fast",
            "everySteps": None,
            "everyMinutes": 30,
            "keep": 2,
            "resume": True,
        },
        "outputUri": "pvc://models/sql",
        "outputPath": "/mnt/output",
        "merge": True,
        "tracking": {"reportTo": "mlflow", "project": "team-sql", "uri": "http://mlflow:5000"},
    }  # fmt: skip


def test_a_configuration_is_read_as_it_was_written():
    read = RunConfig.model_validate(config())
    assert RunConfig.model_validate_json(read.model_dump_json(by_alias=True)) == read
    assert read.extra_args == config()["extraArgs"]
    assert read.tracking is not None
    assert (read.base.token_env, read.tracking.uri) == ("HUB_TOKEN", "http://mlflow:5000")


@pytest.mark.parametrize(
    "part",
    [("base",), ("datasets", 0), ("lora",), ("training",), ("compute",), ("checkpoint",), ("tracking",), ()],
    ids=str,
)
def test_an_unknown_field_between_our_own_processes_is_an_error(part: tuple[str | int, ...]):
    written = config()
    node: Any = written
    for step in part:
        node = node[step]
    node["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        RunConfig.model_validate(written)


def test_an_unknown_field_of_a_result_is_an_error():
    with pytest.raises(ValidationError, match="surprise"):
        RunResult.model_validate_json(json.dumps({"outcome": "Succeeded", "surprise": 1}))


def test_a_result_of_a_whole_run_fits_and_is_handed_out_whole():
    result = succeeded(metrics=[*MAIN, *EXTRA[:7]], warnings=["downloads went to the pod's own disk"])
    assert sent(result) == result


def test_what_preflight_found_is_handed_out_whole():
    result = RunResult(
        outcome="Succeeded",
        stage="Preflight",
        run_digest="d" * 64,
        dataset=dataset(problems=["pvc://data/a.jsonl line 7: messages[0].role: must be one of system, user"] * 5),
        sources=ResolvedSources(base_commit="c" * 40, base_digest="c" * 40, dataset_commits=["f" * 40, ""]),
        warnings=["12 rows stand in the data more than once"],
    )
    assert sent(result) == result


def test_metrics_that_nobody_waits_for_go_first():
    result = succeeded(metrics=[*EXTRA, *MAIN])
    read = sent(result)
    assert [metric for metric in read.metrics if metric.name in MAIN_METRICS] == MAIN
    assert len(MAIN) < len(read.metrics) < len(result.metrics)
    assert (read.dataset, read.artifact, read.facts) == (result.dataset, result.artifact, result.facts)


def test_then_the_rows_that_are_wrong_from_the_last_on():
    problems = [f"{number} " + "x" * 500 for number in range(5)]
    read = sent(succeeded(metrics=[*MAIN, *EXTRA], dataset=dataset(problems=problems)))
    assert read.metrics == MAIN
    assert read.dataset is not None
    assert read.dataset.problems == problems[: len(read.dataset.problems)] != problems
    assert read.artifact is not None
    assert read.artifact.probes == PROBES


def test_then_warnings_and_versions_and_probes_last():
    uri = "pvc://models/" + "x" * 500
    whole = succeeded(
        artifact=artifact(uri=uri, base="b" * 500),
        checkpoint=CheckpointRecord(step=1, uri=uri),
        dataset=dataset(problems=["x" * 500] * 5, report=uri),
        warnings=["w" * 256] * 8,
        facts=RunFacts(versions=[Metric(name=f"library{n}", value="1.2.3") for n in range(16)]),
    )
    read = sent(whole)
    assert read.dataset is not None
    assert read.facts is not None
    assert read.artifact is not None
    assert (read.dataset.problems, read.warnings, read.facts.versions) == ([], [], [])
    assert 0 < len(read.artifact.probes) < 3
    assert read.metrics == MAIN


def test_that_modules_were_trained_whole_stays_known():
    read = sent(succeeded(artifact=artifact(modules_to_save=[f"{n}" * 60 for n in range(10, 74)])))
    assert read.artifact is not None
    assert read.artifact.modules_to_save == ["10" * 60]


def test_a_long_result_loses_metrics_before_it_loses_the_error():
    error = ErrorDetail(reason="DatasetInvalid", message="row 17: no assistant message", field="spec.datasets[0]")
    read = sent(RunResult(outcome="Failed", error=error, metrics=EXTRA))
    assert read.error == error
    assert 0 < len(read.metrics) < len(EXTRA)


def test_a_text_of_many_bytes_for_each_character_still_fits():
    error = ErrorDetail(reason="TrainingFailed", message="数" * 2000)
    read = sent(RunResult(outcome="Failed", error=error))
    assert read.error is not None
    assert read.error.reason == "TrainingFailed"
    assert read.error.message == "数" * 1000


def test_what_cannot_be_shortened_is_said_to_the_developer():
    sources = ResolvedSources(dataset_commits=["c" * 64] * 100)
    with pytest.raises(ValueError, match="does not fit the termination message"):
        RunResult(outcome="Succeeded", sources=sources).message()
