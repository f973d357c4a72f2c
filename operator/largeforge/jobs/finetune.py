"""One rank of a fine-tuning run, started by torchrun: `python -m largeforge.jobs.finetune CONFIG`."""

from __future__ import annotations

import json
import os
import secrets
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.finetunejob import ArtifactRecord, DatasetSummary
from largeforge.api.names import Reason
from largeforge.api.run import RunConfig, RunResult
from largeforge.api.uri import parse_pvc
from largeforge.jobs import artifact, basemodel, card, data, report, weights
from largeforge.jobs.basemodel import BaseModel
from largeforge.jobs.data import TrainingData
from largeforge.jobs.errors import RunError, from_exception
from largeforge.jobs.ranks import Ranks, from_environment

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def main(path: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Check, load, train, write; return the exit code. Every rank runs all of it, the first one speaks and writes."""
    os.umask(0o002)
    config = RunConfig.model_validate_json(path.read_bytes())
    try:
        run = check(config, from_environment(environment, expected=config.processes))
        result = artifact.find_whole(run.target, run_digest=config.digest) or train(run)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user reads it in status
        return _report_failure(config, error, rank=int(environment.get("RANK", "0")))
    report.write_result(result, rank=run.ranks.rank)
    return 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose input passed."""

    config: RunConfig
    ranks: Ranks
    rows: TrainingData
    base: BaseModel
    target: Path
    """The artifact's folder."""

    def say(self, line: str) -> None:
        """Print *line*, once for all ranks."""
        if self.ranks.first:
            print(line, flush=True)  # noqa: T201 - the pod's log is where progress is read


def check(config: RunConfig, ranks: Ranks) -> Run:
    """All that can be found wrong without torch; every rank finds the same."""
    rows = data.read(config.datasets)
    data.split(len(rows.rows), ratio=config.eval_split_ratio, seed=config.training.seed)
    base = basemodel.inspect(Path(config.base_path), uri=config.base_uri, chat=rows.conversational)
    output = Path(config.output_path)
    if not os.access(output, os.W_OK | os.X_OK):
        raise StorageError(f"{config.output_uri}: cannot be written; see the claim's rights and free space")
    name = artifact.folder_name(config.job, run_digest=config.digest, data_digest=rows.digest, base_digest=base.digest)
    return Run(config, ranks, rows, base, output / name)


class StorageError(RunError):
    """The output's claim does not take the artifact."""

    reason = Reason.STORAGE_NOT_READY

    def __init__(self, message: str) -> None:
        super().__init__(message, field="spec.output.uri")


def train(run: Run) -> RunResult:
    """Train and write the artifact."""
    from largeforge.jobs import training

    if run.ranks.first:
        for name in artifact.clear_leftovers(run.target):
            run.say(f"cleared {name}")
    loaded = training.load(run.config, run.base, run.rows)
    run.say(_settings_line(run, loaded.precision))
    trainer = training.build_trainer(run.config, loaded, run.rows)
    measured = training.train(trainer, run.ranks, loaded.precision, say=run.say)
    summary = DatasetSummary(
        digest=run.rows.digest,
        samples=len(trainer.train_dataset),
        eval_samples=len(trainer.eval_dataset) if trainer.eval_dataset is not None else 0,
    )
    result = RunResult(
        outcome="Succeeded",
        run_digest=run.config.digest,
        dataset=summary,
        metrics=measured.metrics,
        facts=measured.facts,
    )
    if run.ranks.first:
        result = artifact.write(
            run.target, lambda folder: _fill(run, trainer, folder, result), attempt=secrets.token_hex(4)
        )
    trainer.accelerator.wait_for_everyone()  # a rank that ended well while the first could not write would be a lie
    trainer.accelerator.end_training()
    return result


def _fill(run: Run, trainer: Any, folder: Path, result: RunResult) -> RunResult:
    """Write weights, tokenizer and card into *folder*; return *result* with the artifact's record."""
    config = run.config
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.lora is not None:
        model.save_pretrained(folder, save_embedding_layers=False)
        _name_base(folder / ADAPTER_CONFIG, config.base_uri)
    else:
        model.to(_stored_type(config)).save_pretrained(folder)
    artifact.copy_files(basemodel.TOKENIZER_FILES, source=run.base.path, to=folder)
    record = ArtifactRecord(
        kind="Adapter" if config.lora is not None else "Model",
        uri=str(parse_pvc(config.output_uri).child(run.target.name)),
        digest=weights.digest(weights.safetensors_files(folder)),
        size_bytes=0,
        rank=config.lora.r if config.lora is not None else None,
        base=config.base_uri,
    )
    (folder / "README.md").write_text(card.model_card(config, result, record))
    record = record.model_copy(update={"size_bytes": artifact.size(folder)})
    return result.model_copy(update={"artifact": record})


def _name_base(path: Path, uri: str) -> None:
    """Write the base's URI where PEFT wrote its folder in this container; sorted, so that two runs write the same."""
    written = json.loads(path.read_bytes())
    written["base_model_name_or_path"] = uri
    if isinstance(written.get("target_modules"), list):
        written["target_modules"] = sorted(written["target_modules"])
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _stored_type(config: RunConfig) -> Any:
    """The type in which the base's weights are stored; a whole model is written in the same."""
    import torch
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(config.base_path, local_files_only=True).dtype
    return dtype if dtype is not None else torch.float32


def _settings_line(run: Run, precision: str) -> str:
    """What is in force, in one line of the log."""
    config, settings = run.config, run.config.training
    length = f"{settings.max_steps} steps" if settings.max_steps is not None else f"{settings.num_train_epochs} epochs"
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * run.ranks.world
    kind = f"LoRA r={config.lora.r} alpha={config.lora.lora_alpha}" if config.lora is not None else "all weights"
    return (
        f"{config.job} run {config.run}: {kind} on {config.base_uri}, {len(run.rows.rows)} rows, {length} of {batch},"
        f" lr {settings.learning_rate:.1e}, maxLength {settings.max_length}, {precision}, {run.ranks.world} ranks"
    )


def _report_failure(config: RunConfig, error: Exception, *, rank: int) -> int:
    """Leave the failure for the launcher; the log gets the frames without the texts, which could hold content."""
    failure = from_exception(error)
    detail = failure.detail()
    report.write_result(RunResult(outcome="Failed", run_digest=config.digest, error=detail), rank=rank)
    if not isinstance(error, RunError):
        sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
    sys.stderr.write(f"rank {rank}: {detail.reason}: {detail.message}\n")
    sys.stderr.flush()
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
