from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.specs import spec


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


def test_dropout_and_target_modules_are_told_where_they_were_left_out():
    assert (spec().peft.rank, spec().peft.dropout, spec().peft.modules) == (16, 0.05, ["all-linear"])
    chosen = spec(peft={"loraDropout": 0, "targetModules": ["q_proj", "v_proj"]}).peft
    assert (chosen.dropout, chosen.modules) == (0, ["q_proj", "v_proj"])


@pytest.mark.parametrize(
    ("compute", "peft", "strategy"),
    [
        ({"gpusPerNode": 1}, "LoRA", "Single"),
        ({"gpusPerNode": 0}, "None", "Single"),
        ({"gpusPerNode": 4}, "LoRA", "DDP"),
        ({"gpusPerNode": 4}, "None", "FSDP"),
        ({"gpusPerNode": 0, "processesPerNode": 2}, "LoRA", "DDP"),
        ({"gpusPerNode": 4, "strategy": "FSDP"}, "LoRA", "FSDP"),
        ({"gpusPerNode": 4, "strategy": "DDP"}, "None", "DDP"),
    ],
    ids=str,
)
def test_the_strategy_follows_from_ranks_and_weights_unless_it_is_given(
    compute: dict[str, Any], peft: str, strategy: str
):
    assert spec(compute=compute, peft={"type": peft}).strategy == strategy


def test_a_checkpoint_is_saved_every_half_hour_unless_it_is_said_otherwise():
    assert spec().checkpoint.minutes == 30
    assert spec(checkpoint={"everyMinutes": 5}).checkpoint.minutes == 5
    assert spec(checkpoint={"everySteps": 100}).checkpoint.minutes is None


def test_rows_are_held_out_by_a_data_set_or_a_share():
    assert not spec().evaluates
    assert spec(evalSplitRatio=0.1).evaluates
    assert spec(evalDataset={"uri": "pvc://data/eval.jsonl"}).evaluates


def test_a_field_of_a_newer_version_is_passed_over():
    assert spec(fromTheFuture={"a": 1}) == spec()
