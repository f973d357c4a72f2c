"""The README of an artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from largeforge.api.finetunejobstatus import ArtifactRecord, RunFacts
from largeforge.api.run import LoraSettings, RunConfig, RunResult

_MEASURED: Mapping[str, str] = {
    "train_loss": "Loss in training, mean over all steps",
    "eval_loss_before": "Held-out loss of the base",
    "eval_loss": "Held-out loss",
    "perplexity": "Held-out perplexity",
    "steps": "Steps",
    "tokens": "Tokens trained on",
    "tokens_per_second": "Tokens per second",
    "train_seconds": "Seconds of training",
}
"""The metrics that a reader of the card looks for, in words."""


def model_card(config: RunConfig, result: RunResult, record: ArtifactRecord) -> str:
    """What it is, what it was made from and how it measured; nothing of the data's content."""
    adapter = record.kind == "Adapter"
    what = f"A LoRA adapter of `{record.base}`" if adapter else f"A model trained from `{record.base}`"
    commit = f" at commit `{record.base_commit}`" if record.base_commit is not None else ""
    after = f", going on from `{config.adapter.uri}`" if config.adapter is not None else ""
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        *([f"base_model: {record.base.removeprefix('hf://')}"] if record.base.startswith("hf://") else []),
        "pipeline_tag: text-generation",
        "tags: [largeforge, sft, trl]",
        "---",
        f"# {config.job}",
        "",
        f"{what}{commit}{after}; made by run {config.run} of the FineTuneJob `{config.job}`.",
        "",
        "![Loss over the steps](loss.png)",
        "",
        "## Measured",
        *_measured(result),
        "",
        "## Data",
        *_data(config, result),
        "",
        "## Training",
        *_training(config, result.facts),
        "",
        "## Weights",
        f"- SHA-256 `{record.digest}`",
        f"- run digest `{config.digest}`",
        "",
    ]
    return "\n".join(lines)


def _measured(result: RunResult) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    values = {metric.name: metric.value for metric in result.metrics}
    yield from (f"| {words} | {values[name]} |" for name, words in _MEASURED.items() if name in values)


def _data(config: RunConfig, result: RunResult) -> Iterator[str]:
    for dataset in config.datasets:
        commit = f" at commit `{dataset.commit}`" if dataset.commit is not None else ""
        weight = f", weight {dataset.weight:g}" if dataset.weight != 1 else ""
        yield f"- `{dataset.uri}`{commit}{weight}"
    if config.eval_dataset is not None:
        yield f"- held out: `{config.eval_dataset.uri}`"
    if result.dataset is not None:
        yield f"- {result.dataset.samples} rows trained on, {result.dataset.eval_samples} held out"
        yield f"- SHA-256 `{result.dataset.digest}`"


def _training(config: RunConfig, facts: RunFacts | None) -> Iterator[str]:
    settings = config.training
    if config.lora is not None:
        yield f"- {_lora(config.lora)}"
    else:
        yield "- all weights"
    length = (
        f"{settings.max_steps} steps" if settings.max_steps is not None else f"{settings.num_train_epochs:g} epochs"
    )
    yield (
        f"- {length}, learning rate {settings.learning_rate:g} ({settings.lr_scheduler_type}), {settings.optim},"
        f" samples of {settings.max_length} tokens, seed {settings.seed}"
    )
    for name, value in sorted(config.extra_args.items()):
        yield f"- {name}: {value}"
    if facts is not None:
        batch = facts.per_device_train_batch_size * facts.gradient_accumulation_steps * facts.ranks
        yield f"- {facts.strategy} with {facts.ranks} ranks in {facts.precision}, {batch} samples a step"
        yield f"- {', '.join(f'{version.name} {version.value}' for version in facts.versions)}"


def _lora(lora: LoraSettings) -> str:
    flags = [name for name, on in (("rsLoRA", lora.use_rslora), ("DoRA", lora.use_dora)) if on]
    whole = [f"whole: {', '.join(lora.modules_to_save)}"] if lora.modules_to_save else []
    shape = f"r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout:g}, on {', '.join(lora.target_modules)}"
    return ", ".join([f"LoRA {shape}", *flags, *whole])
