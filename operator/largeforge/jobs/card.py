"""The README of an artifact."""

from __future__ import annotations

from largeforge.api.finetunejob import ArtifactRecord
from largeforge.api.run import RunConfig, RunResult


def model_card(config: RunConfig, result: RunResult, record: ArtifactRecord) -> str:
    """What it is, what it was made from and how it measured; nothing of the data's content."""
    settings = config.training
    made = "adapter" if record.kind == "Adapter" else "model"
    lines = [
        "---",
        "library_name: " + ("peft" if record.kind == "Adapter" else "transformers"),
        "tags: [largeforge, sft, trl]",
        "---",
        f"# {config.job}",
        "",
        f"An {made} of `{record.base}`, trained by the FineTuneJob `{config.job}` (run {config.run})."
        if record.kind == "Adapter"
        else f"A {made} trained from `{record.base}` by the FineTuneJob `{config.job}` (run {config.run}).",
        "",
        f"- Data: {', '.join(f'`{dataset.uri}`' for dataset in config.datasets)}",
    ]
    if result.dataset is not None:
        lines.append(
            f"- Rows: {result.dataset.samples} trained on, {result.dataset.eval_samples} held out;"
            f" SHA-256 `{result.dataset.digest}`"
        )
    if config.lora is not None:
        lines.append(f"- LoRA: r {config.lora.r}, alpha {config.lora.lora_alpha}, dropout {config.lora.lora_dropout}")
    length = f"{settings.max_steps} steps" if settings.max_steps is not None else f"{settings.num_train_epochs} epochs"
    lines.append(
        f"- Training: {length}, learning rate {settings.learning_rate:g}, samples of {settings.max_length} tokens,"
        f" seed {settings.seed}"
    )
    if result.facts is not None:
        versions = ", ".join(f"{version.name} {version.value}" for version in result.facts.versions)
        lines.append(
            f"- Ran as: {result.facts.strategy}, {result.facts.precision}, {result.facts.ranks} ranks; {versions}"
        )
    lines += [f"- {metric.name}: {metric.value}" for metric in result.metrics]
    lines += [f"- Weights: SHA-256 `{record.digest}`", ""]
    return "\n".join(lines)
