"""What `status.progress` and `status.metrics` say: of what a trainer posts, and at the end of a run.

The wire format is Kubeflow's `trainerStatus`; the metric names are those of transformers' `KubeflowCallback` and of
`largeforge.jobs.reporter`. What a trainer says is bounded here and goes into status as numbers only, so nothing that a
container writes reaches it as text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import Progress
from largeforge.api.model import Model

LARGEST = 1e12
"""Of counts; a larger one is no count of steps, seconds or tokens."""
_COUNTS = ("current_step", "total_steps", "checkpoint_step", "tokens_per_second")
_MEASURES = ("loss", "eval_loss", "train_loss", "learning_rate", "grad_norm", "mean_token_accuracy")
NAMES = frozenset((*_COUNTS, *_MEASURES, "current_epoch"))
"""The metrics that are read; KubeflowCallback posts more, which are passed over."""
_SHOWN = (*_MEASURES, "checkpoint_step")
"""Those that stand in `status.metrics`; the others are in `status.progress`."""


class WireMetric(Model):
    """One metric of a post."""

    name: Annotated[str, Field(max_length=256)]
    value: Annotated[str, Field(max_length=64)]


class TrainerStatus(Model):
    """What is posted; when the trainer thinks that it is, is not asked."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    estimated_remaining_seconds: Annotated[int, Field(ge=0, le=LARGEST)] | None = None
    metrics: Annotated[list[WireMetric], Field(max_length=256)] = []


class WireBody(Model):
    """The body of a post."""

    trainer_status: TrainerStatus


@dataclass(frozen=True, slots=True)
class Posted:
    """How far a trainer says that it is."""

    percent: int | None
    eta_seconds: int | None
    values: Mapping[str, float]
    """Finite, by names of `NAMES`."""

    @property
    def last(self) -> bool:
        """Whether no step follows."""
        return self.percent == 100


def parse(body: bytes) -> Posted:
    """*body* as what it says; a `ValueError` says in one line what is wrong with it."""
    try:
        status = WireBody.model_validate_json(body).trainer_status
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from exc
    values = {m.name: _number(m) for m in status.metrics if m.name in NAMES}
    step, total = values.get("current_step"), values.get("total_steps")
    percent = status.progress_percentage
    if step is not None and total:
        if step > total:
            raise ValueError(f"current_step: {step:.0f} is above total_steps {total:.0f}")
        percent = int(100 * step / total)
    return Posted(percent, status.estimated_remaining_seconds, values)


def progress_of(posted: Posted, *, now: datetime) -> Progress:
    """`status.progress` of what was *posted*."""
    values = posted.values
    step, total = (_count(values.get(name)) for name in ("current_step", "total_steps"))
    loss, epoch = values.get("loss"), values.get("current_epoch")
    return Progress(
        percent=posted.percent,
        step=step,
        total_steps=total,
        epoch=None if epoch is None else f"{epoch:.2f}"[:16],
        eta_seconds=posted.eta_seconds,
        tokens_per_second=_count(values.get("tokens_per_second")),
        loss=None if loss is None else f"{loss:.4g}",
        summary=summary(posted.percent, step, total),
        eta=None if posted.eta_seconds is None else duration(posted.eta_seconds),
        last_update_time=now,
    )


def metrics_of(posted: Posted) -> list[Metric]:
    """`status.metrics` of what was *posted*."""
    return [Metric(name=name, value=f"{posted.values[name]:.6g}") for name in _SHOWN if name in posted.values]


def progress_at_end(before: Progress | None, metrics: Sequence[Metric], *, now: datetime) -> Progress:
    """`status.progress` of a run that succeeded and measured *metrics*: it is done, whatever was posted last."""
    values = {m.name: m.value for m in metrics}
    loss = values.get("eval_loss") or values.get("train_loss")
    known = before or Progress()
    done = known.total_steps
    return Progress(
        percent=100,
        step=done,
        total_steps=done,
        epoch=known.epoch,
        tokens_per_second=known.tokens_per_second,
        loss=loss[:16] if loss else known.loss,
        summary=summary(100, done, done),
        last_update_time=now,
    )


def summary(percent: int | None, step: int | None, total: int | None) -> str | None:
    """«30% 120/400», or what is known of it."""
    share = "" if percent is None else f"{percent}%"
    steps = "" if step is None or total is None else f"{step}/{total}"
    return " ".join(filter(None, (share, steps)))[:32] or None


def duration(seconds: int) -> str:
    """`45s`, `12m`, `3h20m` or `2d4h`: two units at most, as in kubectl's AGE."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds}s"
    if hours == 0:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60}m" if days == 0 else f"{days}d{hours % 24}h"


def _number(metric: WireMetric) -> float:
    try:
        value = float(metric.value)
    except ValueError:
        value = math.nan
    bounded = math.isfinite(value) and (metric.name not in _COUNTS or 0 <= value <= LARGEST)
    if not bounded:
        raise ValueError(f"{metric.name}: the value is no finite number in its range")
    return value


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)
