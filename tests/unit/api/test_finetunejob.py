from __future__ import annotations

from typing import Any

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJobSpec


def spec(**changes: Any) -> FineTuneJobSpec:
    fields: dict[str, Any] = {
        "method": "SFT",
        "base": {"uri": "pvc://models/base"},
        "datasets": [{"uri": "pvc://data/train.jsonl"}],
        "output": {"uri": "pvc://models/out"},
    }
    return FineTuneJobSpec.model_validate(fields | changes)


def test_what_does_not_decide_the_result_leaves_the_digest_alone():
    digest = run_digest(spec())
    expert = {"name": "sql", "inferenceServiceRef": {"name": "svc"}}
    for changes in (
        {"suspend": True},
        {"backoffLimit": 7},
        {"publish": {"expert": expert}},
        {"compute": {"resources": {"limits": {"memory": "8Gi"}}}},
        {"compute": {"podTemplate": {"labels": {"team": "a"}}}},
    ):
        assert run_digest(spec(**changes)) == digest, changes


def test_a_default_that_is_written_out_leaves_the_digest_alone():
    written = spec(
        peft={"type": "LoRA"},
        evalSplitRatio=0,
        training={"seed": 42, "maxLength": 2048, "precision": "Auto"},
        compute={"gpusPerNode": 1},
    )
    assert run_digest(written) == run_digest(spec())


def test_what_decides_the_result_changes_the_digest():
    digests = {
        run_digest(spec(**changes))
        for changes in (
            {},
            {"base": {"uri": "pvc://models/other"}},
            {"peft": {"r": 8}},
            {"datasets": [{"uri": "pvc://data/other.jsonl"}]},
            {"evalSplitRatio": 0.1},
            {"training": {"seed": 7}},
            {"training": {"learningRate": 1e-5}},
            {"compute": {"gpusPerNode": 2}},
            {"output": {"uri": "pvc://models/elsewhere"}},
        )
    }
    assert len(digests) == 9


def test_the_digest_is_this_one_for_ever():
    # A changed value here would train every finished job of every cluster again.
    assert run_digest(spec()) == "49f4999c1ed49692a6a5abee6bf8c9394c929fd4f779d10e8f083220032d8d6d"


def test_a_global_batch_is_split_over_ranks_and_accumulation():
    compute = {"gpusPerNode": 0, "processesPerNode": 2}
    chosen = spec(training={"globalBatchSize": 32}, compute=compute)
    assert (chosen.per_device_train_batch_size, chosen.gradient_accumulation_steps) == (8, 2)
    odd = spec(training={"globalBatchSize": 14}, compute=compute)
    assert (odd.per_device_train_batch_size, odd.gradient_accumulation_steps) == (7, 1)
    default = spec(compute={"gpusPerNode": 4})
    assert (default.per_device_train_batch_size, default.gradient_accumulation_steps) == (8, 1)


def test_a_micro_batch_that_is_given_is_taken():
    chosen = spec(training={"perDeviceTrainBatchSize": 3, "gradientAccumulationSteps": 5})
    assert (chosen.per_device_train_batch_size, chosen.gradient_accumulation_steps) == (3, 5)


def test_the_learning_rate_depends_on_what_is_trained():
    assert spec().learning_rate == 2e-4
    assert spec(peft={"type": "None"}).learning_rate == 2e-5
    assert spec(training={"learningRate": 1e-3}).learning_rate == 1e-3


def test_the_alpha_is_twice_the_rank_unless_it_is_given():
    assert spec(peft={"r": 8}).peft.alpha == 16
    assert spec(peft={"r": 8, "loraAlpha": 8}).peft.alpha == 8
