"""The words of a QuantizeJob's columns and messages, derived from what it has recorded. Pure."""

from __future__ import annotations

from typing import Any

from largeforge.api.meta import condition, is_true
from largeforge.api.names import COMPLETE, FAILED, PUBLISHED, RUNNING, STORAGE_REACHABLE, SUSPENDED, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import CalibrationRecord, QuantizeJobStatus, QuantizeRunRecord

_PHASES = {"Preflight": "Preflight", "Quantize": "Quantizing", "Evaluate": "Evaluating"}


def doing_of(job: QuantizeJob, run: QuantizeRunRecord) -> str:
    """What an attempt of the run's current step does."""
    if run.stage == "Preflight":
        return "checks source, methods and data"
    if run.method is None:
        return "measures the source"
    methods = job.spec.methods
    which = f"method {run.method + 1} of {len(methods)}, {methods[run.method]}"
    return f"quantizes by {which}" if run.stage == "Quantize" else f"measures the result of {which}"


def source_text(job: QuantizeJob) -> str:
    """The model to make smaller, in one word."""
    source = job.spec.source
    if source.uri is not None:
        return source.uri
    if source.fine_tune_job_ref is not None:
        run = source.fine_tune_job_ref.run
        return f"FineTuneJob/{source.fine_tune_job_ref.name}" + ("" if run is None else f"/{run}")
    return f"Expert/{source.expert_ref.name}" if source.expert_ref is not None else ""


def calibration_text(calibration: CalibrationRecord | None) -> str:
    """How much there is to calibrate on."""
    if calibration is None:
        return "no calibration needed"
    return f"{calibration.samples} samples, {calibration.tokens} tokens to calibrate on"


def summary(status: QuantizeJobStatus) -> tuple[str, str]:
    """The phase, and the one thing that is waited for, or how it ended."""
    for kind, phase in ((FAILED, "Failed"), (COMPLETE, "Complete"), (SUSPENDED, "Suspended")):
        if is_true(status.conditions, kind):
            return phase, _message(status, kind)
    running = condition(status.conditions, RUNNING)
    at_work = running is not None and (running.status == "True" or running.reason == Reason.PREFLIGHT)
    if running is not None and at_work and status.run is not None:
        return _PHASES[status.run.stage], running.message
    storage = condition(status.conditions, STORAGE_REACHABLE)
    if storage is not None and storage.status == "False":
        return "Pending", storage.message
    done = status.run is not None and status.run.outcome == "Succeeded"
    return "Pending", _message(status, PUBLISHED if done else RUNNING)


def columns(status: QuantizeJobStatus) -> dict[str, Any]:
    """The method that is shown: the one that was chosen, else the one that is at work or was tried last."""
    attempts = status.attempts
    chosen = next((a for a in attempts if status.run is not None and a.method == status.run.chosen_method), None)
    shown = chosen or (attempts[-1] if attempts else None)
    source, size = status.source, shown.size_bytes if shown is not None else None
    ratio = f"{source.size_bytes / size:.2f}" if source is not None and size else None
    return {
        "method": shown.method if shown is not None else None,
        "perplexity_after": shown.perplexity_after if shown is not None else None,
        "compression_ratio": ratio,
    }


def _message(status: QuantizeJobStatus, kind: str) -> str:
    found = condition(status.conditions, kind)
    return found.message if found else ""
