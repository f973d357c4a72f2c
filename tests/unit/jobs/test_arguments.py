from __future__ import annotations

import pytest

from largeforge.api.run import LoraSettings
from largeforge.jobs.arguments import (
    RESERVED,
    Surroundings,
    can_halve,
    check_extra_args,
    halved,
    lora_arguments,
    sft_arguments,
)
from largeforge.jobs.errors import InvalidConfigError
from tests.unit.jobs.runs import config


def arguments(tmp_path, *, precision="FP32", evaluates=False, positions=4096, shared=False, **fields):
    around = Surroundings(
        precision, positions, evaluates=evaluates, folder=tmp_path / "checkpoints", first_rank_loads=shared
    )
    return sft_arguments(config(tmp_path, **fields), around)


def test_each_setting_reaches_the_argument_of_its_name(tmp_path):
    training = {
        "max_steps": 7,
        "num_train_epochs": None,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 0.5,
        "optim": "adafactor",
        "packing": True,
        "assistant_only_loss": True,
        "completion_only_loss": False,
        "logging_steps": 3,
    }
    found = arguments(tmp_path, training=training)
    renamed = ("num_train_epochs", "warmup_ratio")
    same = {name: value for name, value in training.items() if name not in renamed}
    assert {name: found[name] for name in same} == same
    assert (found["warmup_steps"], found["num_train_epochs"]) == (0.1, 1.0)
    assert (found["per_device_train_batch_size"], found["per_device_eval_batch_size"]) == (8, 8)


def test_epochs_count_where_no_steps_are_set(tmp_path):
    found = arguments(tmp_path, training={"num_train_epochs": 2.5})
    assert (found["max_steps"], found["num_train_epochs"]) == (-1, 2.5)


def test_a_sample_is_no_longer_than_the_base_has_positions(tmp_path):
    assert arguments(tmp_path, positions=32)["max_length"] == 32
    assert arguments(tmp_path, positions=4096)["max_length"] == 64


def test_held_out_rows_are_measured_first_and_every_so_many_steps(tmp_path):
    none = arguments(tmp_path)
    ends = arguments(tmp_path, evaluates=True)
    often = arguments(tmp_path, evaluates=True, training={"eval_steps": 5})
    assert [(a["eval_on_start"], a["eval_strategy"]) for a in (none, ends, often)] == [
        (False, "no"),
        (True, "no"),
        (True, "steps"),
    ]


@pytest.mark.parametrize(("precision", "bf16", "fp16"), [("BF16", True, False), ("FP16", False, True), ("FP32", 0, 0)])
def test_the_precision_is_said_both_ways_because_trl_takes_bf16_by_default(tmp_path, precision, bf16, fp16):
    found = arguments(tmp_path, precision=precision)
    assert (found["bf16"], found["fp16"]) == (bf16, fp16)


def test_fsdp_recomputes_by_its_own_means(tmp_path):
    compute = {"processes": 2, "use_cpu": False, "strategy": "FSDP", "reshard_after_forward": False}
    compute |= {"cpu_offload": True}
    found = arguments(tmp_path, compute=compute)
    assert (found["fsdp"], found["gradient_checkpointing"]) == (True, False)
    assert found["fsdp_config"] == {
        "version": 2,
        "reshard_after_forward": False,
        "cpu_offload": True,
        "activation_checkpointing": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
        "cpu_ram_efficient_loading": False,
    }
    assert arguments(tmp_path)["gradient_checkpointing"] is True
    on_cpu = arguments(tmp_path, compute=compute | {"use_cpu": True})
    assert on_cpu["fsdp_config"]["cpu_offload"] is False


def test_the_first_ranks_weights_are_shared_out_where_no_other_rank_has_read_them(tmp_path):
    compute = {"processes": 2, "use_cpu": True, "strategy": "FSDP"}
    assert arguments(tmp_path, compute=compute, shared=True)["fsdp_config"]["cpu_ram_efficient_loading"] is True


def test_transformers_saves_nothing_of_its_own_accord(tmp_path):
    found = arguments(tmp_path)
    assert (found["save_strategy"], found["output_dir"]) == ("no", str(tmp_path / "checkpoints"))


def test_nothing_is_tracked_unless_asked(tmp_path):
    assert arguments(tmp_path)["report_to"] == "none"
    tracked = arguments(tmp_path, tracking={"report_to": "tensorboard", "project": "team"})
    assert tracked["report_to"] == "tensorboard"


def test_extra_arguments_are_passed_on(tmp_path):
    assert arguments(tmp_path, extra_args={"neftune_noise_alpha": 5})["neftune_noise_alpha"] == 5


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_an_extra_argument_that_a_field_sets_is_refused_with_the_field(name):
    with pytest.raises(InvalidConfigError) as caught:
        check_extra_args({name: 1})
    assert str(caught.value) == f"spec.extraArgs.{name}: is set by {RESERVED[name]}; remove it from extraArgs"


def test_what_is_set_here_is_reserved(tmp_path):
    compute = {"processes": 2, "use_cpu": True, "strategy": "FSDP"}
    ours = {"per_device_eval_batch_size", "logging_nan_inf_filter", "disable_tqdm", "ddp_find_unused_parameters"}
    assert set(arguments(tmp_path, compute=compute)) - set(RESERVED) == ours | {"dataloader_pin_memory"}


def test_an_adapters_settings_are_pefts():
    lora = LoraSettings(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["all-linear"], use_rslora=True)
    assert lora_arguments(lora) == {
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "target_modules": "all-linear",
        "use_rslora": True,
        "use_dora": False,
        "modules_to_save": None,
        "task_type": "CAUSAL_LM",
    }
    named = lora.model_copy(update={"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]})
    assert lora_arguments(named)["target_modules"] == ["q_proj"]
    assert lora_arguments(named)["modules_to_save"] == ["lm_head"]


@pytest.mark.parametrize(
    ("micro", "accumulation", "times", "expected"),
    [
        (8, 4, 0, (8, 4)),
        (8, 4, 1, (4, 8)),
        (8, 4, 3, (1, 32)),
        (6, 1, 1, (3, 2)),
        (6, 1, 2, (1, 6)),
        (3, 2, 1, (1, 6)),
        (1, 5, 2, (1, 5)),
    ],
)
def test_a_halved_batch_keeps_the_samples_of_a_step(tmp_path, micro, accumulation, times, expected):
    run = config(tmp_path, training={"per_device_train_batch_size": micro, "gradient_accumulation_steps": accumulation})
    training = halved(run, times).training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == expected
    assert can_halve(run, times) == (expected[0] > 1)
