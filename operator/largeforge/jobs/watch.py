"""What happens around each step of training: progress, checkpoints, the wish to stop, early stopping.

`watcher()` makes the trainer's callback; transformers is imported there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from largeforge.api.finetunejobstatus import RunFacts
from largeforge.api.run import RunConfig
from largeforge.jobs import checkpoints, history, probing, stop, strategy
from largeforge.jobs.probing import Answers
from largeforge.jobs.progress import Progress, check_loss
from largeforge.jobs.reporter import Reporter, Snapshot
from largeforge.jobs.saving import JOURNAL_SECONDS, Schedule, Stopwatch

_STOP_CHECK_BATCHES = 8
"""Batches of an evaluation between two looks for the wish to stop; each look is an exchange of the ranks."""


@dataclass(slots=True)
class Attempt:
    """What the parts of a running attempt share."""

    config: RunConfig
    folder: Path
    """The folder of the run's checkpoints."""
    first: bool
    """Whether this rank speaks and writes for all."""
    progress: Progress
    reporter: Reporter
    stopwatch: Stopwatch
    schedule: Schedule
    read_back: Callable[[], RunFacts]
    prompts: Mapping[str, Sequence[int]]
    """The token ids of the fixed conversations."""
    facts: RunFacts | None = None
    """What is in force; known from the first step on."""
    stopped: bool = False
    """Whether the ranks agreed to stop."""
    saved_step: int = 0
    """The step of the newest checkpoint."""
    eval_loss: float | None = None
    """The newest held-out loss."""
    trained_seconds: float = 0.0
    """How long training took, over all attempts; known at its end."""
    training: bool = False
    _journal_at: float = field(default=0.0)

    tokens_before: int = 0
    """Tokens that earlier attempts trained on."""
    base_answers: Answers = field(default_factory=dict)
    """What the model that the run began with says to the fixed conversations."""

    def write_journal(self, step: int, *, always: bool = False) -> None:
        """Leave for the next attempt how far this one is; not in each step."""
        moment = self.stopwatch.now()
        if self.first and (always or moment - self._journal_at >= JOURNAL_SECONDS):
            self._journal_at = moment
            known = checkpoints.read_journal(self.folder)
            seconds = round(self.stopwatch.trained_seconds, 3)
            update = {"step": step, "trained_seconds": seconds, "base_answers": dict(self.base_answers)}
            checkpoints.write_journal(self.folder, known.model_copy(update=update))

    def snapshot(self, state: Any, *, loss: float, learning_rate: float) -> Snapshot:
        """What is told to the operator."""
        return Snapshot(
            step=state.global_step,
            total_steps=state.max_steps,
            epoch=float(state.epoch or 0),
            loss=loss,
            learning_rate=learning_rate,
            tokens_per_second=self.tokens_per_second(state),
            eta_seconds=self.progress.eta_seconds(state.max_steps),
            eval_loss=self.eval_loss,
            checkpoint_step=self.saved_step or None,
        )

    def tokens(self, state: Any) -> int:
        """Tokens that this attempt trained on, over all ranks."""
        return history.tokens(state.log_history) - self.tokens_before

    def tokens_per_second(self, state: Any) -> float:
        """The speed of this attempt's steps, data included, evaluations and checkpoints left out."""
        seconds = self.stopwatch.steps_seconds
        return self.tokens(state) / seconds if seconds else 0.0


class Watcher:
    """What the trainer calls, on every rank at the same points. `watcher()` makes a callback of it."""

    def __init__(self, trainer: Any, attempt: Attempt) -> None:
        self.trainer = trainer
        self.attempt = attempt
        self.batches = 0
        self.began = False
        self.checked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Everything is prepared; the held-out loss of the base comes next, then the first step."""
        attempt = self.attempt
        attempt.tokens_before = history.tokens(state.log_history)
        self.trainer._total_train_tokens = attempt.tokens_before  # noqa: SLF001 - TRL counts anew in each process
        attempt.training = True
        attempt.progress.begin(state.global_step)
        attempt.stopwatch.begin()
        attempt.schedule.begin()
        stop.listen()
        attempt.facts = attempt.read_back()
        measured = probing.base_answers(self.trainer.model, attempt.prompts, begun=state.global_step > 0)
        attempt.base_answers = measured or attempt.base_answers
        strategy.reshard(self.trainer)
        attempt.write_journal(state.global_step, always=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The first step begins after the base was measured."""
        if not self.began:
            self.began = True
            self.attempt.progress.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The ranks agree on whether to save and whether to stop."""
        attempt = self.attempt
        attempt.stopwatch.step_ends()
        if not self.checked:
            self.checked = True
            attempt.facts = attempt.read_back()  # again: a first step has changed it for some
        attempt.progress.done(state.global_step)
        due = attempt.first and attempt.schedule.due(state.global_step)
        stopping, due = strategy.agree(self.trainer, stop.requested(), due)
        attempt.write_journal(state.global_step)
        if state.global_step >= state.max_steps:
            return  # the artifact follows
        if stopping:
            attempt.stopped = True
            control.should_training_stop, control.should_evaluate = True, False
        if (due or stopping) and attempt.config.checkpoint.resume:
            control.should_save = True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """An evaluation can be longer than the grace period: it is left in its middle."""
        self.batches += 1
        if self.attempt.training and self.batches % _STOP_CHECK_BATCHES == 0:
            (stopping,) = strategy.agree(self.trainer, stop.requested())
            if stopping:
                self.attempt.stopped = True
                raise stop.StoppedError

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A step, or several, are done."""
        attempt = self.attempt
        if "loss" not in logs:
            return
        loss, rate = float(logs["loss"]), float(logs.get("learning_rate", 0.0))
        check_loss(loss, step=state.global_step)
        attempt.progress.step(state.global_step, state.max_steps, loss=loss, learning_rate=rate)
        if attempt.first:
            attempt.reporter.update(attempt.snapshot(state, loss=loss, learning_rate=rate))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """With early stopping, the best weights so far are saved, and too many worse ones in a row end training."""
        attempt, early = self.attempt, self.attempt.config.training.early_stopping
        strategy.reshard(self.trainer)
        attempt.eval_loss = float(metrics["eval_loss"])
        attempt.progress.evaluated(attempt.eval_loss)
        if early is None or not attempt.training or state.global_step in (0, state.max_steps):
            return
        found = history.best(state.log_history, threshold=early.threshold)
        if found is not None and found.step == state.global_step:
            control.should_save = True
        if found is not None and found.stale >= early.patience:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """A checkpoint is written."""
        seal(self.trainer, self.attempt)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """The last step is done, or the ranks agreed to stop."""
        self.attempt.training = False
        self.attempt.trained_seconds = self.attempt.stopwatch.trained_seconds


def watcher(trainer: Any, attempt: Attempt) -> Any:
    """The callback for *trainer*."""
    from transformers import TrainerCallback

    return type("Watch", (Watcher, TrainerCallback), {})(trainer, attempt)


def seal(trainer: Any, attempt: Attempt) -> None:
    """Declare the checkpoint of the newest step whole, when every rank has written its part."""
    trainer.accelerator.wait_for_everyone()
    state, early = trainer.state, attempt.config.training.early_stopping
    if attempt.first:
        checkpoints.seal(
            checkpoints.path_of(attempt.folder, state.global_step),
            step=state.global_step,
            trained_seconds=attempt.stopwatch.trained_seconds,
        )
        found = history.best(state.log_history, threshold=early.threshold) if early is not None else None
        checkpoints.prune(
            attempt.folder, keep=attempt.config.checkpoint.keep, best=found.step if found is not None else None
        )
        attempt.write_journal(state.global_step, always=True)
    attempt.saved_step = state.global_step
    attempt.schedule.begin()
