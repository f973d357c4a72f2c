"""What a FineTuneJob's status says in each situation: conditions first, phase and message derived from them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from largeforge.api.common import ErrorDetail, ObjectRef
from largeforge.api.finetunejob import FineTuneJob, FineTuneJobStatus, RunRecord
from largeforge.api.meta import Condition, condition, is_true
from largeforge.api.names import (
    COMPLETE,
    DATASET_VALID,
    FAILED,
    PUBLISHED,
    RUNNING,
    STALLED,
    STORAGE_REACHABLE,
    SUSPENDED,
    Reason,
)
from largeforge.api.redact import redact
from largeforge.api.run import RunResult
from largeforge.controllers.plan import changed
from largeforge.controllers.podstate import Problem

HISTORY = 10
_DATASET_REASONS = (Reason.DATASET_INVALID, Reason.DATASET_MISSING)


class Speaker:
    """Makes statuses of one object at one time; each method is a situation."""

    def __init__(self, job: FineTuneJob, *, now: datetime) -> None:
        self._job = job
        self._now = now

    def begins(self, run: RunRecord) -> FineTuneJobStatus:
        """A run was given its number; all that was said of the one before is taken back, but for its artifact."""
        status = self._job.status
        before = [] if status.run is None else [_closed(status.run, self._now)]
        history = [*before, *status.history][:HISTORY]
        return self._say(*self._at_first(), run=run, history=history, error=None, metrics=[], loss=None)

    def suspended(self, run: RunRecord) -> FineTuneJobStatus:
        """The user holds the run: it has no Job."""
        message = f"run {run.number} is held; set spec.suspend: false to go on"
        return self._say(
            _yes(SUSPENDED, Reason.SUSPENDED, message),
            _no(RUNNING, Reason.SUSPENDED, "suspended"),
            run=run,
        )

    def lacks_storage(self, problem: Problem) -> FineTuneJobStatus:
        """What the run reads or writes is not there; no Job is made."""
        return self._say(
            self._resumed(),
            _no(STORAGE_REACHABLE, problem.reason, problem.message),
            _no(RUNNING, Reason.WAITING, "waiting for storage"),
        )

    def retries(self, run: RunRecord, cause: ErrorDetail, *, at: datetime) -> FineTuneJobStatus:
        """An attempt ended badly; the next one is *run*'s."""
        message = f"attempt {run.attempt} begins at {at:%H:%M:%S} UTC; the one before: {cause.message}"
        return self._say(self._resumed(), _no(RUNNING, Reason.RETRYING, message[:4096]), run=run, error=cause)

    def waits(self, attempt: int) -> FineTuneJobStatus:
        """The Job is made; nothing is known of its pod."""
        return self._say(
            self._resumed(),
            _yes(STORAGE_REACHABLE, Reason.READY, "all claims and ConfigMaps are there"),
            _no(RUNNING, Reason.PENDING, f"attempt {attempt} waits for its pod to start"),
        )

    def runs(self, attempt: int) -> FineTuneJobStatus:
        """The trainer is at work."""
        return self._say(
            self._resumed(),
            _yes(STORAGE_REACHABLE, Reason.READY, "all claims and ConfigMaps are there"),
            _yes(RUNNING, Reason.RUNNING, f"attempt {attempt} is training"),
        )

    def held_up(self, problem: Problem) -> FineTuneJobStatus:
        """The pod does not start, or was not even made."""
        return self._say(self._resumed(), _no(RUNNING, problem.reason, problem.message))

    def refused(self, message: str, *, publishing: bool) -> FineTuneJobStatus:
        """The API server takes what we make of the spec for wrong: only the user can help."""
        said = f"the API server refuses what this spec asks for: {redact(message)}"
        return self._say(
            _no(PUBLISHED if publishing else RUNNING, Reason.REFUSED, said), _yes(STALLED, Reason.REFUSED, said)
        )

    def failed(self, run: RunRecord, cause: ErrorDetail, why: Problem) -> FineTuneJobStatus:
        """The run is over, without a result."""
        said = [
            self._resumed(),
            _yes(FAILED, why.reason, why.message),
            _yes(STALLED, why.reason, why.message),
            _no(COMPLETE, why.reason, "the run failed"),
            _no(RUNNING, why.reason, "the run failed"),
        ]
        if cause.reason in _DATASET_REASONS:
            said.append(_no(DATASET_VALID, cause.reason, cause.message))
        return self._say(*said, run=run, error=cause)

    def succeeded(self, run: RunRecord, result: RunResult) -> FineTuneJobStatus:
        """The run has its result; whether it is complete is the publisher's to say."""
        assert result.artifact is not None  # noqa: S101 - `ending` made sure
        dataset = result.dataset
        rows = f"{dataset.samples} rows, {dataset.eval_samples} held out" if dataset else "read whole"
        found = "found what an earlier attempt wrote" if result.adopted else "trained"
        return self._say(
            self._resumed(),
            _yes(STORAGE_REACHABLE, Reason.READY, "all claims and ConfigMaps are there"),
            _yes(DATASET_VALID, Reason.SUCCEEDED, rows),
            _no(RUNNING, Reason.SUCCEEDED, f"run {run.number} {found}"),
            run=run,
            error=None,
            metrics=result.metrics,
            loss=_loss(result),
            dataset=dataset,
            artifact=result.artifact,
            artifact_run=run.number,
            resolved=result.facts,
        )

    def publishing(self, said: Condition, *, complete: bool) -> FineTuneJobStatus:
        """What is known of the Expert of a run that succeeded: complete, or waiting for that."""
        publish, artifact = self._job.spec.publish, self._job.status.artifact
        end = (
            _yes(COMPLETE, Reason.SUCCEEDED, f"trained: {artifact.uri if artifact else 'the artifact'}")
            if complete
            else _no(COMPLETE, said.reason, said.message)
        )
        expert = ObjectRef(name=publish.expert.name) if publish and complete else None
        return self._say(self._resumed(), said, end, expert_ref=expert)

    def unchanged(self) -> FineTuneJobStatus:
        """The same again, said of this generation."""
        return self._say(*self._job.status.conditions, self._resumed())

    def _say(self, *said: Condition, **fields: Any) -> FineTuneJobStatus:
        """The status with what was *said*; the rest stays as it was, but a failure not said again is over."""
        old = self._job.status
        clear = (_no(FAILED, Reason.PENDING, ""), _no(STALLED, Reason.PENDING, ""))
        spoken = {c.type: c for c in (*self._at_first(), *old.conditions, *clear, *said)}
        generation = self._job.metadata.generation
        new = changed(old, list(spoken.values()), generation=generation, now=self._now, **fields)
        phase, message = summary(new)
        return new.model_copy(update={"phase": phase, "message": message[:2048]})

    def _at_first(self) -> list[Condition]:
        """What is said of a run before anything is known."""
        publish = self._job.spec.publish
        return [
            _no(COMPLETE, Reason.PENDING, "the run has not ended"),
            _no(FAILED, Reason.PENDING, ""),
            self._resumed(),
            _no(STALLED, Reason.PENDING, ""),
            _unknown(STORAGE_REACHABLE, "not looked at yet"),
            _unknown(DATASET_VALID, "known when the run has read it"),
            _no(RUNNING, Reason.PENDING, "the first attempt is about to be made"),
            _no(PUBLISHED, Reason.PENDING, "after the run")
            if publish
            else _no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"),
        ]

    def _resumed(self) -> Condition:
        return _no(SUSPENDED, Reason.NOT_SUSPENDED, "")


def summary(status: FineTuneJobStatus) -> tuple[str, str]:
    """The phase, and the one thing that is waited for, or how it ended."""
    for kind, phase in ((FAILED, "Failed"), (COMPLETE, "Complete"), (SUSPENDED, "Suspended")):
        if is_true(status.conditions, kind):
            return phase, _message(status, kind)
    if is_true(status.conditions, RUNNING):
        return "Running", _message(status, RUNNING)
    storage = condition(status.conditions, STORAGE_REACHABLE)
    if storage is not None and storage.status == "False":
        return "Pending", storage.message
    done = status.run is not None and status.run.outcome == "Succeeded"
    return "Pending", _message(status, PUBLISHED if done else RUNNING)


def _message(status: FineTuneJobStatus, kind: str) -> str:
    found = condition(status.conditions, kind)
    return found.message if found else ""


def _closed(run: RunRecord, now: datetime) -> RunRecord:
    """A run's record for the history; one that was stopped has no outcome, but an end."""
    return run if run.completion_time else run.model_copy(update={"completion_time": now})


def _loss(result: RunResult) -> str | None:
    values = {m.name: m.value for m in result.metrics}
    return (values.get("eval_loss") or values.get("train_loss") or "")[:32] or None


def _no(kind: str, reason: str, message: str) -> Condition:
    return _condition(kind, "False", reason, message)


def _yes(kind: str, reason: str, message: str) -> Condition:
    return _condition(kind, "True", reason, message)


def _unknown(kind: str, message: str) -> Condition:
    return _condition(kind, "Unknown", Reason.PENDING, message)


def _condition(kind: str, status: Literal["True", "False", "Unknown"], reason: str, message: str) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message)
