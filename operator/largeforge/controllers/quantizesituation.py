"""What every decision about a QuantizeJob's run rests on, and the bookkeeping of its record. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.controllers.podstate import Problem
from largeforge.controllers.quantizeobservation import Observed
from largeforge.controllers.quantizestatus import QuantizeSpeaker
from largeforge.resources.attemptpod import Installation
from largeforge.resources.names import quantize_job_name, quantize_step
from largeforge.resources.progress import ProgressTarget
from largeforge.resources.quantizepod import Images


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision rests on beside the object."""

    observed: Observed
    speaker: QuantizeSpeaker
    images: Images
    errands: Installation
    """Of the Jobs that remove files."""
    progress: ProgressTarget | None
    now: datetime
    hold: Problem | None = None
    """Why no attempt may be made of the spec as it is."""


def at_attempt(job: QuantizeJob, run: QuantizeRunRecord, number: int) -> QuantizeRunRecord:
    """*run* at its attempt *number* of the step that it is at."""
    step = quantize_step(run.stage, run.method)
    name = quantize_job_name(job.metadata.name, run.number, step, number)
    return run.model_copy(update={"attempt": number, "job_name": name})


def at_step(job: QuantizeJob, run: QuantizeRunRecord, stage: str, method: int | None) -> QuantizeRunRecord:
    """*run* at the first attempt of this step."""
    return at_attempt(job, run.model_copy(update={"stage": stage, "method": method, "failures": 0}), 1)
