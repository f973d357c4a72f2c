from __future__ import annotations

from typing import Any

import pytest

from largeforge.api.digest import changed_fields, field_digests, run_digest
from tests.unit.api.specs import spec

EXPERT = {"name": "sql", "inferenceServiceRef": {"name": "svc"}}
HUB = {"uri": "hf://org/model"}
ROWS = {"uri": "hf://org/rows"}

DECIDING: list[dict[str, Any]] = [
    {"base": {"uri": "pvc://models/other"}},
    {"base": HUB},
    {"base": HUB | {"revision": "v2"}},
    {"base": HUB | {"trustRemoteCode": True}},
    {"base": {"fineTuneJobRef": {"name": "first"}}},
    {"base": {"fineTuneJobRef": {"name": "first", "run": 2}}},
    {"base": {"expertRef": {"name": "sql"}}},
    {"peft": {"type": "None"}},
    {"peft": {"r": 8}},
    {"peft": {"loraAlpha": 8}},
    {"peft": {"loraDropout": 0.1}},
    {"peft": {"targetModules": ["q_proj"]}},
    {"peft": {"useRslora": True}},
    {"peft": {"useDora": True}},
    {"peft": {"modulesToSave": ["lm_head"]}},
    {"datasets": [{"uri": "pvc://data/other.jsonl"}]},
    {"datasets": [{"uri": "pvc://data/train.jsonl"}] * 2},
    {"datasets": [{"uri": "pvc://data/train.jsonl", "format": "Messages"}]},
    {"datasets": [{"uri": "pvc://data/train.jsonl", "columns": {"messages": "chat"}}]},
    {"datasets": [{"uri": "pvc://data/train.jsonl", "weight": 2}]},
    {"datasets": [{"uri": "pvc://data/train.jsonl", "maxSamples": 10}]},
    {"datasets": [ROWS]},
    {"datasets": [ROWS | {"revision": "v2"}]},
    {"datasets": [ROWS | {"config": "small"}]},
    {"datasets": [ROWS | {"split": "test"}]},
    {"evalDataset": {"uri": "pvc://data/eval.jsonl"}},
    {"evalSplitRatio": 0.1},
    {"dataPolicy": {"mode": "Warn"}},
    {"dataPolicy": {"maxInvalidRatio": 0.1}},
    {"dataPolicy": {"onTooLong": "Drop"}},
    {"training": {"maxSteps": 10}},
    {"training": {"numTrainEpochs": 2}},
    {"training": {"learningRate": 1e-5}},
    {"training": {"lrSchedulerType": "linear"}},
    {"training": {"warmupRatio": 0.1}},
    {"training": {"weightDecay": 0.1}},
    {"training": {"maxGradNorm": 2}},
    {"training": {"optim": "adafactor"}},
    {"training": {"globalBatchSize": 8}},
    {"training": {"perDeviceTrainBatchSize": 2}},
    {"training": {"perDeviceTrainBatchSize": 2, "gradientAccumulationSteps": 3}},
    {"training": {"maxLength": 512}},
    {"training": {"packing": True}},
    {"training": {"assistantOnlyLoss": True}},
    {"training": {"completionOnlyLoss": True}},
    {"training": {"precision": "FP32"}},
    {"training": {"gradientCheckpointing": False}},
    {"training": {"attnImplementation": "sdpa"}},
    {"training": {"seed": 7}},
    {"training": {"evalSteps": 5}},
    {"training": {"loggingSteps": 5}},
    {"training": {"evalSteps": 5, "earlyStopping": {"patience": 2}}},
    {"extraArgs": {"neftune_noise_alpha": 5}},
    {"extraArgs": {"neftune_noise_alpha": 6}},
    {"compute": {"gpusPerNode": 2}},
    {"compute": {"gpusPerNode": 0, "processesPerNode": 2}},
    {"compute": {"gpusPerNode": 2, "strategy": "DDP"}},
    {"compute": {"gpusPerNode": 2, "strategy": "FSDP"}},
    {"compute": {"gpusPerNode": 2, "strategy": "FSDP", "fsdp": {"cpuOffload": True}}},
    {"output": {"uri": "pvc://models/elsewhere"}},
    {"output": {"uri": "pvc://models/out", "merge": True}},
    {"gate": {"compareWith": "Base"}},
]

LEFT_ALONE: list[dict[str, Any]] = [
    {"suspend": True},
    {"backoffLimit": 7},
    {"activeDeadlineSeconds": 60},
    {"ttlSecondsAfterFinished": 60},
    {"rerunPolicy": "Never"},
    {"image": "registry.internal/trainer:2"},
    {"imagePullSecrets": [{"name": "registry"}]},
    {"serviceAccountName": "trainer"},
    {"publish": {"expert": EXPERT}},
    {"gate": {"maxEvalLoss": 2.5}},
    {"gate": {"maxPerplexity": 12, "onFailure": "Warn"}},
    {"tracking": {"reportTo": "TensorBoard"}},
    {"cache": {"uri": "pvc://hub-cache"}},
    {"checkpoint": {"everySteps": 10, "keep": 5, "resume": "Never"}},
    {"checkpoint": {"uri": "pvc://fast"}},
    {"compute": {"resources": {"limits": {"memory": "8Gi"}}}},
    {"compute": {"sharedMemory": "2Gi"}},
    {"compute": {"gpuResource": "amd.com/gpu"}},
    {"compute": {"podTemplate": {"labels": {"team": "a"}, "nodeSelector": {"zone": "a"}}}},
]


@pytest.mark.parametrize("changes", LEFT_ALONE, ids=str)
def test_what_does_not_decide_the_result_leaves_the_digest_alone(changes: dict[str, Any]):
    assert run_digest(spec(**changes)) == run_digest(spec())
    assert field_digests(spec(**changes)) == field_digests(spec())


def test_each_field_that_decides_the_result_changes_the_digest():
    digests = [run_digest(spec(**changes)) for changes in ({}, *DECIDING)]
    assert len(set(digests)) == len(digests)


def test_how_a_source_is_reached_leaves_the_digest_alone():
    secret = {"secretRef": {"name": "hub-token"}}
    without = spec(base=HUB, datasets=[ROWS], evalDataset=ROWS)
    with_secrets = spec(base=HUB | secret, datasets=[ROWS | secret], evalDataset=ROWS | secret)
    assert run_digest(with_secrets) == run_digest(without)


def test_a_default_that_is_written_out_leaves_the_digest_alone():
    written = spec(
        peft={"type": "LoRA", "useDora": False},
        datasets=[{"uri": "pvc://data/train.jsonl", "format": "Auto", "columns": {}}],
        evalSplitRatio=0,
        dataPolicy={"mode": "Enforce", "maxInvalidRatio": 0, "onTooLong": "Truncate"},
        training={"seed": 42, "maxLength": 2048, "precision": "Auto", "weightDecay": 0.0},
        extraArgs={},
        compute={"nodes": 1, "gpusPerNode": 1, "strategy": "Auto", "podTemplate": {"env": []}},
        output={"uri": "pvc://models/out", "merge": False},
    )
    assert run_digest(written) == run_digest(spec())


@pytest.mark.parametrize(
    ("written", "left_out"),
    [
        ({"peft": {"r": 16, "loraAlpha": 32, "loraDropout": 0.05, "targetModules": ["all-linear"]}}, {}),
        ({"peft": {"r": 8, "loraAlpha": 16}}, {"peft": {"r": 8}}),
        ({"training": {"numTrainEpochs": 1, "globalBatchSize": 32, "learningRate": 2e-4}}, {}),
        ({"peft": {"type": "None"}, "training": {"learningRate": 2e-5}}, {"peft": {"type": "None"}}),
        (
            {"training": {"perDeviceTrainBatchSize": 2, "gradientAccumulationSteps": 1}},
            {"training": {"perDeviceTrainBatchSize": 2}},
        ),
        ({"datasets": [{"uri": "pvc://data/train.jsonl", "weight": 1}]}, {}),
        (
            {"compute": {"gpusPerNode": 2, "strategy": "FSDP", "fsdp": {"reshardAfterForward": True}}},
            {"compute": {"gpusPerNode": 2, "strategy": "FSDP"}},
        ),
    ],
    ids=str,
)
def test_so_does_a_default_that_no_schema_has(written: dict[str, Any], left_out: dict[str, Any]):
    assert run_digest(spec(**written)) == run_digest(spec(**left_out))
    assert field_digests(spec(**written)) == field_digests(spec(**left_out))


def test_a_whole_number_is_the_same_number():
    assert run_digest(spec(training={"numTrainEpochs": 2})) == run_digest(spec(training={"numTrainEpochs": 2.0}))


def test_the_digest_is_this_one_for_ever():
    # A changed value here would train every finished job of every cluster again.
    assert run_digest(spec()) == "49f4999c1ed49692a6a5abee6bf8c9394c929fd4f779d10e8f083220032d8d6d"
    chosen = spec(training={"maxSteps": 10, "learningRate": 3e-4}, extraArgs={"neftune_noise_alpha": 5})
    assert run_digest(chosen) == "f20d275f69cd0b3c02cd4d6c13d130c5bcdc997503caeda7e2b13466b006e618"


def test_the_fields_that_changed_are_told_by_the_names_that_the_user_writes():
    before = field_digests(spec(training={"maxSteps": 10, "seed": 7}, peft={"r": 8}))
    after = field_digests(
        spec(training={"maxSteps": 20, "seed": 7}, peft={"r": 8}, extraArgs={"a": 1}, gate={"compareWith": "Base"})
    )
    assert changed_fields(before, after) == ["spec.extraArgs", "spec.gate.compareWith", "spec.training.maxSteps"]
    assert changed_fields(before, before) == []


def test_what_is_recorded_of_a_field_is_no_value():
    recorded = field_digests(spec(datasets=[{"uri": "pvc://secret-claim/x.jsonl"}]))
    assert "secret-claim" not in str(recorded)
    assert all(len(value) == 8 for value in recorded.values())
