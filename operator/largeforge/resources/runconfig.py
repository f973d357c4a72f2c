"""What a run is told: the `RunConfig` of its pods, every value the effective one."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.finetunejob import FineTuneJob, FineTuneJobSpec
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import API_VERSION, FINETUNEJOB_LABEL, RUN_LABEL, STAGE_LABEL
from largeforge.api.run import (
    CONFIG_FILE,
    AdapterSource,
    CheckpointSettings,
    ComputeSettings,
    EarlyStoppingSettings,
    LoraSettings,
    ModelSource,
    RowSource,
    RunConfig,
    TrackingSettings,
    TrainingSettings,
)
from largeforge.api.training import DEFAULT_TRAIN_EPOCHS
from largeforge.api.uri import HfUri, parse
from largeforge.resources.labels import common_labels
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import Manifest
from largeforge.resources.runstorage import (
    ADAPTER_PATH,
    BASE_PATH,
    CACHE_PATH,
    CHECKPOINTS_PATH,
    OUTPUT_PATH,
    Rows,
    base_field,
    base_of,
    row_sources,
)

_REPORT_TO = {"TensorBoard": "tensorboard", "WandB": "wandb", "MLflow": "mlflow"}


def hub_token_variable(key: str) -> str:
    """The environment variable with the hub's token for the base (`base`) or a data set (its key)."""
    return f"LARGEFORGE_HUB_TOKEN_{key.upper()}"


def run_config(job: FineTuneJob, run: RunRecord, *, cached: bool) -> RunConfig:
    """The configuration; *cached* says whether the pod has the hub's cache mounted and may rely on it."""
    spec = job.spec
    base, checkpoint = base_of(run), spec.checkpoint
    rows = row_settings(row_sources(job), run.dataset_commits)
    return RunConfig(
        namespace=job.metadata.namespace,
        job=job.metadata.name,
        uid=job.metadata.uid,
        run=run.number,
        digest=run.digest,
        method=spec.method,
        base=_model(job, run),
        adapter=None
        if base.adapter is None
        else AdapterSource(uri=base.adapter, field=base_field(job), path=ADAPTER_PATH),
        datasets=rows[: len(spec.datasets)],
        eval_dataset=rows[-1] if spec.eval_dataset is not None else None,
        eval_split_ratio=spec.eval_split_ratio,
        data_policy=spec.data_policy,
        lora=_lora(spec),
        training=_training(spec),
        extra_args=spec.extra_args,
        compute=ComputeSettings(
            processes=spec.compute.processes,
            use_cpu=spec.compute.gpus_per_node == 0,
            strategy=spec.strategy,
            reshard_after_forward=spec.compute.fsdp.reshard_after_forward if spec.compute.fsdp else True,
            cpu_offload=spec.compute.fsdp.cpu_offload if spec.compute.fsdp else False,
        ),
        cache_path=CACHE_PATH if cached else None,
        checkpoint=CheckpointSettings(
            path=OUTPUT_PATH if checkpoint.uri is None else CHECKPOINTS_PATH,
            uri=checkpoint.uri or spec.output.uri,
            every_steps=checkpoint.every_steps,
            every_minutes=checkpoint.minutes,
            keep=checkpoint.keep,
            resume=checkpoint.resume == "Auto",
        ),
        output_uri=spec.output.uri,
        output_path=OUTPUT_PATH,
        merge=spec.output.merge,
        tracking=_tracking(job),
    )


def config_map(job: FineTuneJob, run: RunRecord, *, name: str, stage: str, data: dict[str, str]) -> Manifest:
    """A ConfigMap of the run."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": job.metadata.namespace,
            "labels": run_labels(job, run, stage=stage),
            "ownerReferences": [owner_reference(API_VERSION, "FineTuneJob", job.metadata)],
        },
        "data": data,
    }


def config_data(config: RunConfig) -> dict[str, str]:
    """The entry of a ConfigMap that a pod of the run reads."""
    return {CONFIG_FILE: config.model_dump_json(by_alias=True, indent=2) + "\n"}


def run_labels(job: FineTuneJob, run: RunRecord, *, stage: str) -> dict[str, str]:
    """The labels of what belongs to a stage of a run."""
    name = job.metadata.name
    component = "preflight" if stage == "Preflight" else "trainer"
    own = {FINETUNEJOB_LABEL: name, RUN_LABEL: str(run.number), STAGE_LABEL: stage}
    return common_labels(name=name, component=component) | own


def _model(job: FineTuneJob, run: RunRecord) -> ModelSource:
    base, asked = base_of(run), job.spec.base
    hub = isinstance(parse(base.uri), HfUri)
    return ModelSource(
        uri=base.uri,
        field=base_field(job),
        path=None if hub else BASE_PATH,
        # A commit that another run has found is what the hub is asked for.
        revision=(asked.revision or base.commit) if hub else None,
        commit=base.commit,
        digest=base.digest,
        token_env=hub_token_variable("base") if hub and (asked.secret_ref or base.secret_ref) else None,
        trust_remote_code=asked.trust_remote_code,
    )


def row_settings(sources: Sequence[Rows], commits: Sequence[str] = ()) -> list[RowSource]:
    """What a pod is told of each data set; *commits* are those that preflight found."""
    found = []
    for i, rows in enumerate(sources):
        source, hub = rows.source, isinstance(rows.uri, HfUri)
        found.append(
            RowSource(
                uri=source.uri,
                field=rows.field,
                path=rows.path,
                revision=source.revision,
                commit=(commits[i] or None) if i < len(commits) else None,
                config=source.config,
                split=source.split,
                format=source.format,
                columns=source.columns.model_dump(exclude_none=True),
                weight=getattr(source, "weight", None) or 1,
                max_samples=source.max_samples,
                token_env=hub_token_variable(rows.key) if hub and source.secret_ref is not None else None,
            )
        )
    return found


def _lora(spec: FineTuneJobSpec) -> LoraSettings | None:
    peft = spec.peft
    if peft.type != "LoRA":
        return None
    return LoraSettings(
        r=peft.rank,
        lora_alpha=peft.alpha,
        lora_dropout=peft.dropout,
        target_modules=peft.modules,
        use_rslora=peft.use_rslora,
        use_dora=peft.use_dora,
        modules_to_save=peft.modules_to_save,
    )


def _training(spec: FineTuneJobSpec) -> TrainingSettings:
    training = spec.training
    epochs = training.num_train_epochs if training.num_train_epochs is not None else DEFAULT_TRAIN_EPOCHS
    stopping = training.early_stopping
    return TrainingSettings(
        max_steps=training.max_steps,
        num_train_epochs=None if training.max_steps is not None else epochs,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_ratio=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optim,
        per_device_train_batch_size=spec.per_device_train_batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        max_length=training.max_length,
        packing=training.packing,
        assistant_only_loss=training.assistant_only_loss,
        completion_only_loss=training.completion_only_loss,
        precision=training.precision,
        gradient_checkpointing=training.gradient_checkpointing,
        attn_implementation=training.attn_implementation,
        seed=training.seed,
        eval_steps=training.eval_steps,
        logging_steps=training.logging_steps,
        early_stopping=None
        if stopping is None
        else EarlyStoppingSettings(patience=stopping.patience, threshold=stopping.threshold),
    )


def _tracking(job: FineTuneJob) -> TrackingSettings | None:
    tracking = job.spec.tracking
    if tracking is None:
        return None
    return TrackingSettings.model_validate(
        {
            "report_to": _REPORT_TO[tracking.report_to],
            "project": tracking.project or f"{job.metadata.namespace}-{job.metadata.name}",
            "uri": tracking.uri,
        }
    )
