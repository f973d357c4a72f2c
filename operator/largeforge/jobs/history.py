"""What the trainer's log says: losses, the best evaluation, and the figures of a run. Pure; needs no torch.

The log (`log_history`) is part of each checkpoint, so all of this holds over the attempts of a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Log = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation with the lowest loss, the one before the first step left out."""

    step: int
    loss: float
    stale: int
    """Evaluations in a row, up to the newest, that brought no better loss."""


def training_losses(log: Log) -> list[tuple[int, float]]:
    """Step and loss, in order; each is the mean since the entry before."""
    return [(int(entry["step"]), float(entry["loss"])) for entry in log if "loss" in entry]


def learning_rates(log: Log) -> list[tuple[int, float]]:
    """Step and learning rate, in order."""
    return [(int(entry["step"]), float(entry["learning_rate"])) for entry in log if "learning_rate" in entry]


def held_out_losses(log: Log) -> list[tuple[int, float]]:
    """Step and held-out loss, in order; step 0 is the base."""
    return [(int(entry["step"]), float(entry["eval_loss"])) for entry in log if "eval_loss" in entry]


def best(log: Log, *, threshold: float) -> Best | None:
    """The best evaluation so far; one counts as better if it is so by more than *threshold*."""
    found: Best | None = None
    for step, loss in held_out_losses(log):
        if step == 0:
            continue
        if found is None:
            found = Best(step, loss, 0)
            continue
        stale = 0 if loss < found.loss - threshold else found.stale + 1
        found = Best(step, loss, stale) if loss < found.loss else Best(found.step, found.loss, stale)
    return found


def mean_loss(log: Log) -> float | None:
    """The mean loss over all steps."""
    total, before = 0.0, 0
    for step, loss in training_losses(log):
        total += loss * (step - before)
        before = step
    return total / before if before else None


def tokens(log: Log) -> int:
    """Tokens that were trained on, over all ranks, as TRL counts them."""
    counts = [entry["num_tokens"] for entry in log if "num_tokens" in entry]
    return round(counts[-1]) if counts else 0


def perplexity(loss: float) -> float:
    """The exponential of *loss*; infinity where a float cannot hold it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
