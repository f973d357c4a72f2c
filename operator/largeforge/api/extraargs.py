"""`spec.extraArgs`: free arguments of TRL's `SFTConfig`, without those that a field of the job sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import WithJsonSchema

MAX_EXTRA_ARGS = 64

_Type = Literal["boolean", "number", "string", "object"]

_SET_BY: Mapping[str, Mapping[str, _Type]] = {
    "spec.training.maxSteps": {"max_steps": "number"},
    "spec.training.numTrainEpochs": {"num_train_epochs": "number"},
    "spec.training.learningRate": {"learning_rate": "number"},
    "spec.training.lrSchedulerType": {"lr_scheduler_type": "string"},
    "spec.training.warmupRatio": {"warmup_steps": "number", "warmup_ratio": "number"},
    "spec.training.weightDecay": {"weight_decay": "number"},
    "spec.training.maxGradNorm": {"max_grad_norm": "number"},
    "spec.training.optim": {"optim": "string"},
    "spec.training.perDeviceTrainBatchSize": {
        "per_device_train_batch_size": "number",
        "auto_find_batch_size": "boolean",
    },
    "spec.training.gradientAccumulationSteps": {"gradient_accumulation_steps": "number"},
    "spec.training.maxLength": {"max_length": "number"},
    "spec.training.packing": {"packing": "boolean"},
    "spec.training.assistantOnlyLoss": {"assistant_only_loss": "boolean"},
    "spec.training.completionOnlyLoss": {"completion_only_loss": "boolean"},
    "spec.training.precision": {"bf16": "boolean", "fp16": "boolean"},
    "spec.training.gradientCheckpointing": {
        "gradient_checkpointing": "boolean",
        "activation_checkpointing": "boolean",
    },
    "spec.training.seed": {"seed": "number", "data_seed": "number"},
    "spec.training.evalSteps": {
        "eval_steps": "number",
        "eval_strategy": "string",
        "eval_on_start": "boolean",
        "eval_delay": "number",
    },
    "spec.training.earlyStopping": {
        "load_best_model_at_end": "boolean",
        "metric_for_best_model": "string",
        "greater_is_better": "boolean",
    },
    "spec.training.loggingSteps": {"logging_steps": "number", "logging_strategy": "string"},
    "spec.compute.gpusPerNode": {"use_cpu": "boolean"},
    "spec.compute.processesPerNode": {"local_rank": "number"},
    "spec.compute.strategy": {
        "ddp_backend": "string",
        "fsdp": "string",
        "deepspeed": "string",
        "parallelism_config": "object",
    },
    "spec.compute.fsdp": {"fsdp_config": "object"},
    "spec.checkpoint": {
        "save_strategy": "string",
        "save_only_model": "boolean",
        "save_on_each_node": "boolean",
        "enable_jit_checkpoint": "boolean",
    },
    "spec.checkpoint.everySteps": {"save_steps": "number"},
    "spec.checkpoint.keep": {"save_total_limit": "number"},
    "spec.checkpoint.resume": {
        "resume_from_checkpoint": "string",
        "restore_callback_states_from_checkpoint": "boolean",
    },
    "spec.tracking.reportTo": {"report_to": "string"},
    "spec.tracking.project": {"run_name": "string", "project": "string"},
    "spec.base.trustRemoteCode": {"trust_remote_code": "boolean"},
    "spec.base.secretRef": {"hub_token": "string"},
    "spec.base and spec.training.attnImplementation": {"model_init_kwargs": "object"},
    "spec.datasets[].columns.text": {"dataset_text_field": "string"},
    "spec.output.uri": {"output_dir": "string", "push_to_hub": "boolean", "hub_model_id": "string"},
    "spec.method": {"do_train": "boolean"},
    "spec.evalDataset": {"do_eval": "boolean", "do_predict": "boolean"},
}

RESERVED_ARGS: Mapping[str, str] = {name: field for field, names in _SET_BY.items() for name in names}
"""Names of `SFTConfig` that are not extra, and the field that sets each."""


def _property(field: str, kind: _Type) -> dict[str, Any]:
    described: dict[str, Any] = {"type": kind, "description": f"Not here: {field} sets it."}
    if kind == "string":
        described["maxLength"] = 512
    if kind == "object":
        described |= {"maxProperties": MAX_EXTRA_ARGS, "x-kubernetes-preserve-unknown-fields": True}
    return described


def _rule(field: str, names: Mapping[str, _Type]) -> dict[str, str]:
    there = " || ".join(f"has(self.{name})" for name in names)
    verb = "is" if len(names) == 1 else "are"
    return {"rule": f"!({there})", "message": f"{', '.join(names)} {verb} set by {field}; remove from extraArgs"}


def _schema() -> dict[str, Any]:
    """An object of free values. CEL sees none of the keys of such an object but those that the schema declares.

    (Of a map whose values are free it sees nothing at all: the API server refuses the rule.) So the reserved names are
    declared, each with its type, and a rule for each of our fields refuses them by `has`.
    """
    return {
        "type": "object",
        "maxProperties": MAX_EXTRA_ARGS,
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            name: _property(field, kind) for field, names in _SET_BY.items() for name, kind in names.items()
        },
        "x-kubernetes-validations": [_rule(field, names) for field, names in _SET_BY.items()],
    }


ExtraArgs = Annotated[dict[str, Any], WithJsonSchema(_schema())]
"""By TRL's own names; the values are any JSON. Preflight refuses names that TRL does not have."""
