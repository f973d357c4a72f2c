"""From a `RunConfig` to the keyword arguments of TRL's `SFTConfig` and PEFT's `LoraConfig`. Pure; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from largeforge.api.extraargs import RESERVED_ARGS
from largeforge.api.run import LoraSettings, RunConfig
from largeforge.jobs.errors import InvalidConfigError

Precision = Literal["BF16", "FP16", "FP32"]

EXTRA_ARGS = "spec.extraArgs"
RESERVED = RESERVED_ARGS


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the arguments rest on besides the configuration."""

    precision: Precision
    positions: int
    """The longest sample that the base has positions for."""
    evaluates: bool
    """Whether there are held-out rows."""
    folder: Path
    """The folder of the run's checkpoints."""
    first_rank_loads: bool = False
    """With FSDP: whether the first rank's weights are shared out; else each rank has read them."""


def check_extra_args(extra: Mapping[str, Any]) -> None:
    """Raise for a name in *extra* that a field of the job sets."""
    for name in sorted(extra):
        if name in RESERVED:
            raise InvalidConfigError(
                f"{EXTRA_ARGS}.{name}: is set by {RESERVED[name]}; remove it from extraArgs",
                field=f"{EXTRA_ARGS}.{name}",
            )


def sft_arguments(config: RunConfig, around: Surroundings) -> dict[str, Any]:
    """The keyword arguments of `SFTConfig`; what is not named here keeps TRL's default."""
    check_extra_args(config.extra_args)
    return {**_training(config, around), **_measuring(config, around), **_compute(config, around), **config.extra_args}


def _training(config: RunConfig, around: Surroundings) -> dict[str, Any]:
    settings = config.training
    return {
        "max_steps": settings.max_steps if settings.max_steps is not None else -1,
        "num_train_epochs": settings.num_train_epochs if settings.num_train_epochs is not None else 1.0,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share of the steps
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "per_device_eval_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "max_length": min(settings.max_length, around.positions),
        "packing": settings.packing,
        "assistant_only_loss": settings.assistant_only_loss,
        "completion_only_loss": settings.completion_only_loss,
        "seed": settings.seed,
    }


def _measuring(config: RunConfig, around: Surroundings) -> dict[str, Any]:
    settings = config.training
    return {
        "logging_steps": settings.logging_steps,
        # Its filter would hide a loss that is no number, which ends a run.
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if around.evaluates and settings.eval_steps is not None else "no",
        "eval_steps": settings.eval_steps,
        # Not `evaluate()` before `train()`: that prepares the model without DDP or FSDP, and the ranks train apart.
        "eval_on_start": around.evaluates,
        "report_to": config.tracking.report_to if config.tracking is not None else "none",
        "run_name": f"{config.job}-r{config.run}",
        "disable_tqdm": True,
        "output_dir": str(around.folder),
        # Ours decide when (`watch.py`): transformers knows no minutes, and saves at the very end too.
        "save_strategy": "no",
    }


def _compute(config: RunConfig, around: Surroundings) -> dict[str, Any]:
    compute, sharded = config.compute, config.compute.strategy == "FSDP"
    checkpointing = config.training.gradient_checkpointing
    arguments: dict[str, Any] = {
        "bf16": around.precision == "BF16",
        "fp16": around.precision == "FP16",
        "use_cpu": compute.use_cpu,
        "ddp_backend": "gloo" if compute.use_cpu else None,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not compute.use_cpu,
        # FSDP has its own: with the argument every block would be gathered once more.
        "gradient_checkpointing": checkpointing and not sharded,
    }
    if sharded:
        arguments |= {
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "reshard_after_forward": compute.reshard_after_forward,
                # On a CPU they are there already, and torch would ask for a GPU to pin the memory.
                "cpu_offload": compute.cpu_offload and not compute.use_cpu,
                "activation_checkpointing": checkpointing,
                "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "state_dict_type": "FULL_STATE_DICT",
                "cpu_ram_efficient_loading": around.first_rank_loads,
            },
        }
    return arguments


def lora_arguments(lora: LoraSettings) -> dict[str, Any]:
    """The keyword arguments of PEFT's `LoraConfig`."""
    return {
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": "all-linear" if lora.target_modules == ["all-linear"] else lora.target_modules,
        "use_rslora": lora.use_rslora,
        "use_dora": lora.use_dora,
        "modules_to_save": lora.modules_to_save,
        "task_type": "CAUSAL_LM",
    }


def halved(config: RunConfig, times: int) -> RunConfig:
    """*config* with the micro-batch halved *times* times and accumulation raised, so that a step sees as many samples.

    An odd micro-batch falls to the next smaller size that divides the samples of a rank's step.
    """
    settings = config.training
    micro, share = settings.per_device_train_batch_size, _share(config)
    for _ in range(times):
        micro = max(size for size in range(1, max(1, micro // 2) + 1) if share % size == 0)
    return config.model_copy(
        update={
            "training": settings.model_copy(
                update={"per_device_train_batch_size": micro, "gradient_accumulation_steps": share // micro}
            )
        }
    )


def can_halve(config: RunConfig, times: int) -> bool:
    """Whether halving once more than *times* gives a smaller micro-batch."""
    return halved(config, times).training.per_device_train_batch_size > 1


def _share(config: RunConfig) -> int:
    return config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
