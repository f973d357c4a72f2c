"""What every decision about a run rests on, and the bookkeeping of its record. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord, Usage
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.controllers.attempts import held_seconds
from largeforge.controllers.finetunejobstatus import Speaker
from largeforge.controllers.observation import Observed
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import Manifest
from largeforge.resources.attemptpod import Installation
from largeforge.resources.names import preflight_job_name, training_job_name
from largeforge.resources.progress import ProgressTarget

AnyRun = TypeVar("AnyRun", RunRecord, QuantizeRunRecord)


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision rests on beside the object."""

    observed: Observed
    speaker: Speaker
    installation: Installation
    progress: ProgressTarget | None
    now: datetime
    hold: Problem | None = None
    """Why no attempt may be made of the spec as it is."""


def at_attempt(job: FineTuneJob, run: RunRecord, number: int) -> RunRecord:
    """*run* at its attempt *number* of the stage that it is in."""
    name = preflight_job_name if run.stage == "Preflight" else training_job_name
    return run.model_copy(update={"attempt": number, "job_name": name(job.metadata.name, run.number, number)})


def remaining(deadline: int | None, run: AnyRun, now: datetime) -> float | None:
    """Seconds until the run has been active for *deadline*; None where there is none, or it is suspended."""
    if deadline is None or run.active_since is None:
        return None
    return deadline - run.active_seconds - (now - run.active_since).total_seconds()


def inactive(run: AnyRun, now: datetime) -> AnyRun:
    """*run* with its clock stopped."""
    if run.active_since is None:
        return run
    spent = run.active_seconds + max(int((now - run.active_since).total_seconds()), 0)
    return run.model_copy(update={"active_since": None, "active_seconds": spent})


def over(run: AnyRun, at: datetime, **fields: Any) -> AnyRun:
    """*run*, ended."""
    return inactive(run, at).model_copy(update={"completion_time": at, **fields})


def used(job: FineTuneJob, here: Situation, current: Manifest) -> Usage:
    """What the run has held, with the attempt of *current* that ends now."""
    known = job.status.usage or Usage()
    if job.status.run is None or job.status.run.stage != "Training":
        return known
    seconds = held_seconds(current, here.observed.pods, until=here.now)
    return Usage(gpu_seconds=known.gpu_seconds + seconds * job.spec.compute.gpus_per_node)
