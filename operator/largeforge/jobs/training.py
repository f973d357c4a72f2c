"""One training from the base in memory to the artifact on the disk. Torch is imported inside."""

from __future__ import annotations

import os
import resource
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import DatasetSummary
from largeforge.api.run import RunConfig, RunResult
from largeforge.jobs import (
    artifact,
    basemodel,
    checkpoints,
    firstrank,
    history,
    models,
    probing,
    stop,
    strategy,
    tracking,
    trainer,
    watch,
    writing,
)
from largeforge.jobs.arguments import Precision, Surroundings
from largeforge.jobs.models import Base
from largeforge.jobs.progress import Progress
from largeforge.jobs.ranks import Ranks
from largeforge.jobs.reporter import Reporter
from largeforge.jobs.saving import Schedule, Stopwatch
from largeforge.jobs.trainer import Parts
from largeforge.jobs.watch import Attempt


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose input is known."""

    config: RunConfig
    ranks: Ranks
    base: Base
    tokenizer: Any
    rows: Any
    """`rows.Prepared`."""
    target: Path
    """The artifact's folder."""
    folder: Path
    """The folder of the run's checkpoints."""
    folder_uri: str
    halvings: int
    """How often the launcher has halved the micro-batch."""

    def say(self, line: str) -> None:
        """Print *line*, once for all ranks."""
        if self.ranks.first:
            print(line, flush=True)  # noqa: T201 - the pod's log is where progress is read


def train(run: Run, reporter: Reporter) -> RunResult:
    """Train, measure and write; raise `stop.StoppedError` where the ranks agreed to stop."""
    with _tracked(run):
        return _train(run, reporter)


def _train(run: Run, reporter: Reporter) -> RunResult:
    config = run.config
    precision = models.choose_precision(config)
    around = Surroundings(
        precision,
        basemodel.positions(run.base.folder),
        evaluates=run.rows.eval is not None,
        folder=run.folder,
        first_rank_loads=firstrank.possible(config, run.base),
    )
    arguments = trainer.sft_config(config, around)  # before the weights: it makes the process group that shares them
    load = firstrank.load if around.first_rank_loads else models.load_weights
    model = models.load_model(config, run.base, precision, load=load)
    found = _begin(run, arguments)
    run.say(_settings_line(run, precision))
    if found is not None:
        run.say(f"resumed from step {found.manifest.step}")
    stopwatch = Stopwatch(earlier=found.manifest.trained_seconds if found is not None else 0.0)
    model, peft = models.adapted(config, model)
    made = trainer.build(config, Parts(arguments, model, peft, run.tokenizer, run.rows, stopwatch))
    attempt = Attempt(
        config=config,
        folder=run.folder,
        first=run.ranks.first,
        progress=Progress(run.say),
        reporter=reporter,
        stopwatch=stopwatch,
        schedule=Schedule(config.checkpoint),
        read_back=lambda: strategy.read_back(made, config, precision, halvings=run.halvings),
        prompts=probing.prompt_ids(run.tokenizer),
        base_answers=checkpoints.read_journal(run.folder).base_answers,
        saved_step=found.manifest.step if found is not None else 0,
    )
    made.add_callback(watch.watcher(made, attempt))
    _fit(made, attempt, found)
    _keep_best(made, attempt)
    return _finish(run, made, attempt)


def _begin(run: Run, arguments: Any) -> checkpoints.Checkpoint | None:
    """Open the folder of checkpoints, and return what this attempt goes on from; the same on every rank."""
    if run.ranks.first:
        for name in artifact.clear_leftovers(run.target):
            run.say(f"cleared {name}")
        for line in checkpoints.clear_replaced(run.folder, job=run.config.job, owner=run.config.uid):
            run.say(line)
        checkpoints.begin(run.folder, resume=run.config.checkpoint.resume, owner=run.config.uid)
    arguments.distributed_state.wait_for_everyone()
    found = checkpoints.newest(run.folder)
    arguments.eval_on_start = arguments.eval_on_start and found is None
    return found


@contextmanager
def _tracked(run: Run) -> Iterator[None]:
    """Prepare the run of the tracker before its library is asked for anything, and say there how it ended."""
    os.environ.update(tracking.environment(run.config, run.folder))
    if run.config.tracking is None or run.config.tracking.report_to != "mlflow" or not run.ranks.first:
        yield
        return
    import mlflow

    try:
        os.environ.update(tracking.begin_mlflow(run.config, mlflow))
    except Exception as error:  # raised again: a tracker's library raises what it likes, and is named then
        if (told := tracking.blamed(run.config, error)) is not None:
            raise told from error
        raise
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except stop.StoppedError:
        status = "KILLED"
        raise
    finally:
        mlflow.end_run(status)


def _fit(made: Any, attempt: Attempt, found: checkpoints.Checkpoint | None) -> None:
    try:
        made.train(resume_from_checkpoint=str(found.path) if found is not None else None)
    except stop.StoppedError:  # in the middle of an evaluation: the weights are those of the step before it
        if attempt.config.checkpoint.resume and made.state.global_step > attempt.saved_step:
            made._save_checkpoint(made.model_wrapped, None)  # noqa: SLF001 - what the trainer itself calls
            watch.seal(made, attempt)
    except Exception as error:  # raised again: a tracker's library raises what it likes, and is named then
        if (told := tracking.blamed(attempt.config, error)) is not None:
            raise told from error
        raise
    if attempt.stopped:
        made.accelerator.wait_for_everyone()  # torchrun ends all as soon as one has ended
        raise stop.StoppedError


def _keep_best(made: Any, attempt: Attempt) -> None:
    """Measure the held-out loss of the last weights; with early stopping, go back to the best ones."""
    if made.eval_dataset is None:
        return
    measured = history.held_out_losses(made.state.log_history)
    if not measured or measured[-1][0] != made.state.global_step:
        made.evaluate()
    early = attempt.config.training.early_stopping
    best = history.best(made.state.log_history, threshold=early.threshold) if early is not None else None
    if best is not None and best.step != made.state.global_step:
        made.state.best_model_checkpoint = str(checkpoints.path_of(attempt.folder, best.step))
        made._load_best_model()  # noqa: SLF001 - knows how each strategy's weights are loaded
        attempt.progress.say(f"kept the weights of step {best.step}")
        made.evaluate()
        made.state.log_history.pop()  # it would stand there as the loss of the last step


def _finish(run: Run, made: Any, attempt: Attempt) -> RunResult:
    """Write the artifact, and remove the checkpoints when it is whole."""
    strategy.check_agreement(made)
    answers = probing.answers(made.model, attempt.prompts)
    state = writing.gather(made, run.config)
    result = RunResult(
        outcome="Succeeded",
        run_digest=run.config.digest,
        dataset=_summary(run, made),
        checkpoint=checkpoints.record(run.folder, uri=run.folder_uri),
        metrics=_metrics(made, attempt),
        facts=attempt.facts,
    )
    if run.ranks.first:
        trained = writing.Trained(
            made, state, probing.records(attempt.prompts, attempt.base_answers, answers), run.folder
        )
        result = artifact.write(
            run.target,
            lambda folder: writing.fill(run.config, run.base, trained, folder, result),
            attempt=secrets.token_hex(4),
        )
        checkpoints.remove(run.folder)
    made.accelerator.wait_for_everyone()  # a rank that ended well while the first could not write would be a lie
    made.accelerator.end_training()
    return result


def _summary(run: Run, made: Any) -> DatasetSummary:
    held_out = len(made.eval_dataset) if made.eval_dataset is not None else 0
    return DatasetSummary(digest=run.rows.digest, samples=len(run.rows.train), eval_samples=held_out)


def _metrics(made: Any, attempt: Attempt) -> list[Metric]:
    """The figures of the run, those that a gate and a person look for first: the tail may be cut off."""
    log, watch_ = made.state.log_history, attempt.stopwatch
    held_out = history.held_out_losses(log)
    values: dict[str, str] = {}
    if (loss := history.mean_loss(log)) is not None:
        values["train_loss"] = f"{loss:.4f}"
    if held_out and held_out[0][0] == 0:
        values["eval_loss_before"] = f"{held_out[0][1]:.4f}"
    if attempt.eval_loss is not None:
        values["eval_loss"] = f"{attempt.eval_loss:.4f}"
        values["perplexity"] = f"{history.perplexity(attempt.eval_loss):.4f}"
    share = watch_.data_seconds / watch_.steps_seconds if watch_.steps_seconds else 0.0
    values |= {
        "steps": str(made.state.global_step),
        "tokens": str(history.tokens(log)),
        "tokens_per_second": f"{attempt.tokens_per_second(made.state):.1f}",
        "train_seconds": f"{attempt.trained_seconds:.1f}",
        "data_seconds": f"{watch_.data_seconds:.2f}",
        "data_share": f"{share:.4f}",
        "peak_memory_bytes": str(_peak_memory(made)),
    }
    return [Metric(name=name, value=value) for name, value in values.items()]


def _peak_memory(made: Any) -> int:
    """The most memory that this rank held: of its GPU, or of the process where it trains on a CPU."""
    import torch

    if made.args.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _settings_line(run: Run, precision: Precision) -> str:
    """What is in force, in one line of the log."""
    config, settings = run.config, run.config.training
    length = f"{settings.max_steps} steps" if settings.max_steps is not None else f"{settings.num_train_epochs} epochs"
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * run.ranks.world
    kind = f"LoRA r={config.lora.r} alpha={config.lora.lora_alpha}" if config.lora is not None else "all weights"
    halved = f", micro-batch halved {run.halvings} times" if run.halvings else ""
    return (
        f"{config.job} run {config.run}: {kind} on {config.base.uri}, {len(run.rows.train)} rows, {length} of {batch},"
        f" lr {settings.learning_rate:.1e}, maxLength {settings.max_length}, {precision}, {config.compute.strategy}"
        f" with {run.ranks.world} ranks{halved}"
    )
