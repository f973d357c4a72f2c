"""The words of a FineTuneJob's columns, derived from its conditions, and how conditions are spelled."""

from __future__ import annotations

from typing import Literal

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import DatasetSummary, FineTuneJobStatus
from largeforge.api.meta import Condition, condition, is_true
from largeforge.api.names import COMPLETE, FAILED, PUBLISHED, RUNNING, STORAGE_REACHABLE, SUSPENDED, Reason


def summary(status: FineTuneJobStatus) -> tuple[str, str]:
    """The phase, and the one thing that is waited for, or how it ended."""
    for kind, phase in ((FAILED, "Failed"), (COMPLETE, "Complete"), (SUSPENDED, "Suspended")):
        if is_true(status.conditions, kind):
            return phase, _message(status, kind)
    running = condition(status.conditions, RUNNING)
    if running is not None and running.status == "True":
        return "Running", running.message
    if running is not None and running.reason == Reason.PREFLIGHT:
        return "Preflight", running.message
    storage = condition(status.conditions, STORAGE_REACHABLE)
    if storage is not None and storage.status == "False":
        return "Pending", storage.message
    done = status.run is not None and status.run.outcome == "Succeeded"
    return "Pending", _message(status, PUBLISHED if done else RUNNING)


def base_text(job: FineTuneJob) -> str:
    """The model to start from, in one word."""
    base = job.spec.base
    if base.uri is not None:
        return base.uri
    if base.fine_tune_job_ref is not None:
        run = base.fine_tune_job_ref.run
        return f"FineTuneJob/{base.fine_tune_job_ref.name}" + ("" if run is None else f"/{run}")
    return f"Expert/{base.expert_ref.name}" if base.expert_ref is not None else ""


def rows_text(dataset: DatasetSummary | None) -> str:
    """How many rows there are."""
    return "read whole" if dataset is None else f"{dataset.samples} rows, {dataset.eval_samples} held out"


def no(kind: str, reason: str, message: str) -> Condition:
    """The condition *kind*, False."""
    return _condition(kind, "False", reason, message)


def yes(kind: str, reason: str, message: str) -> Condition:
    """The condition *kind*, True."""
    return _condition(kind, "True", reason, message)


def unknown(kind: str, message: str) -> Condition:
    """The condition *kind*, of which nothing is known yet."""
    return _condition(kind, "Unknown", Reason.PENDING, message)


def _message(status: FineTuneJobStatus, kind: str) -> str:
    found = condition(status.conditions, kind)
    return found.message if found else ""


def _condition(kind: str, status: Literal["True", "False", "Unknown"], reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message[:4096])
