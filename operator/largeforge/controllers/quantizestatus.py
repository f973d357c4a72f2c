"""What a QuantizeJob's status says in each situation: conditions first, phase and message derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from largeforge.api.common import ErrorDetail, ObjectRef
from largeforge.api.finetunejobstatus import Progress
from largeforge.api.meta import Condition
from largeforge.api.names import (
    COMPLETE,
    DATASET_VALID,
    FAILED,
    GATE_PASSED,
    LEFTOVERS_REMOVED,
    PUBLISHED,
    RUNNING,
    STALLED,
    STORAGE_REACHABLE,
    SUSPENDED,
    VALIDATED,
    Reason,
)
from largeforge.api.quantize import PreparedRecord
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import (
    MethodAttempt,
    QuantizeJobStatus,
    QuantizeRunRecord,
)
from largeforge.api.redact import redact
from largeforge.controllers.phases import no, unknown, yes
from largeforge.controllers.plan import changed
from largeforge.controllers.podstate import Problem
from largeforge.controllers.quantizephases import calibration_text, columns, doing_of, source_text, summary

HISTORY = 10
DATASET_REASONS = (Reason.DATASET_INVALID, Reason.DATASET_MISSING, Reason.CALIBRATION_INVALID)
STORAGE_REASONS = (Reason.STORAGE_NOT_READY, Reason.DISK_FULL)
HOLDS = (
    Reason.RERUN_REFUSED,
    Reason.REMOTE_CODE_NOT_ALLOWED,
    Reason.SERVICE_ACCOUNT_NOT_ALLOWED,
    Reason.NOT_SERVABLE,
)
"""Why the spec that is there now starts nothing."""


class QuantizeSpeaker:
    """Makes statuses of one object at one time; each method is a situation."""

    def __init__(self, job: QuantizeJob, *, now: datetime, hold: Problem | None = None) -> None:
        self._job = job
        self._now = now
        self._hold = hold

    def begins(self, run: QuantizeRunRecord) -> QuantizeJobStatus:
        """A run was given its number; all that was said of the one before is taken back, but for its artifact."""
        status = self._job.status
        before = [] if status.run is None else [_closed(status.run, self._now)]
        return self._say(
            *self._at_first(),
            run=run,
            history=[*before, *status.history][:HISTORY],
            error=None,
            progress=None,
            source=None,
            calibration=None,
            evaluation=None,
            attempts=[],
            versions=[],
        )

    def held(self) -> QuantizeJobStatus:
        """The spec may not be run as it is: nothing is made until it changes."""
        if self._hold is None:
            raise AssertionError("there is a reason to hold")
        reason, message = self._hold.reason, self._hold.message
        return self._say(self._resumed(), no(RUNNING, reason, message), yes(STALLED, reason, message))

    def suspended(self, run: QuantizeRunRecord) -> QuantizeJobStatus:
        """The user holds the run: it has no Job."""
        message = f"run {run.number} is held; set spec.suspend: false to go on"
        return self._say(
            yes(SUSPENDED, Reason.SUSPENDED, message),
            no(RUNNING, Reason.SUSPENDED, "suspended"),
            run=run,
            progress=_without_eta(self._job.status.progress),
        )

    def lacks_storage(self, problem: Problem) -> QuantizeJobStatus:
        """What the run reads or writes is not there, or out of reach."""
        return self._say(
            self._resumed(),
            no(STORAGE_REACHABLE, problem.reason, problem.message),
            no(RUNNING, Reason.WAITING, "waiting for storage"),
        )

    def held_up(self, problem: Problem) -> QuantizeJobStatus:
        """What the run begins with is not there; or the pod does not start, or was not even made."""
        return self._say(self._resumed(), no(RUNNING, problem.reason, problem.message))

    def retries(self, run: QuantizeRunRecord, cause: ErrorDetail, *, at: datetime, **fields: Any) -> QuantizeJobStatus:
        """An attempt ended badly; the next one is *run*'s."""
        message = f"attempt {run.attempt} begins at {at:%H:%M:%S} UTC; the one before: {cause.message}"
        said = [self._resumed(), no(RUNNING, Reason.RETRYING, message)]
        if cause.reason in STORAGE_REASONS:
            said.append(no(STORAGE_REACHABLE, cause.reason, cause.message))
        return self._say(*said, run=run, error=cause, **fields)

    def waits(self, run: QuantizeRunRecord, message: str, **fields: Any) -> QuantizeJobStatus:
        """The attempt's pod is awaited."""
        return self._say(self._resumed(), self._reachable(), no(RUNNING, Reason.PENDING, message), run=run, **fields)

    def runs(self, run: QuantizeRunRecord) -> QuantizeJobStatus:
        """The attempt's pod is at work."""
        doing = f"attempt {run.attempt} {doing_of(self._job, run)}"
        if run.stage == "Preflight":
            return self._say(self._resumed(), self._reachable(), no(RUNNING, Reason.PREFLIGHT, doing))
        return self._say(self._resumed(), self._reachable(), yes(RUNNING, Reason.RUNNING, doing))

    def checked(self, run: QuantizeRunRecord, prepared: PreparedRecord, warnings: Sequence[str]) -> QuantizeJobStatus:
        """Preflight found nothing wrong: *run* is about to measure the source."""
        notes = "".join(f"; {text}" for text in warnings)
        said = f"{calibration_text(prepared.calibration)}, {prepared.windows} windows held out{notes}"
        return self._say(
            self._resumed(),
            self._reachable(),
            yes(VALIDATED, Reason.CHECKED, "preflight has passed"),
            yes(DATASET_VALID, Reason.CHECKED, said[:4096]),
            no(RUNNING, Reason.PENDING, "preflight has passed; the source is about to be measured"),
            run=run,
            error=None,
            source=prepared.source,
            calibration=prepared.calibration,
        )

    def goes_on(self, run: QuantizeRunRecord, **fields: Any) -> QuantizeJobStatus:
        """A step is done, and *run* is at the first attempt of the next one."""
        message = f"about to begin: attempt {run.attempt} {doing_of(self._job, run)}"
        said = [self._resumed(), self._reachable(), no(RUNNING, Reason.PENDING, message)]
        return self._say(*said, run=run, error=None, progress=None, **fields)

    def refused(self, message: str, *, publishing: bool) -> QuantizeJobStatus:
        """The API server takes what we make of the spec for wrong: only the user can help."""
        said = f"the API server refuses what this spec asks for: {redact(message)}"
        return self._say(
            no(PUBLISHED if publishing else RUNNING, Reason.REFUSED, said), yes(STALLED, Reason.REFUSED, said)
        )

    def failed(self, run: QuantizeRunRecord, cause: ErrorDetail, why: Problem, **fields: Any) -> QuantizeJobStatus:
        """The run is over, and no gate could let anything out."""
        said = [
            self._resumed(),
            yes(FAILED, why.reason, why.message),
            yes(STALLED, why.reason, why.message),
            no(COMPLETE, why.reason, "the run failed"),
            no(RUNNING, why.reason, "the run failed"),
        ]
        if cause.reason in DATASET_REASONS:
            said.append(no(DATASET_VALID, cause.reason, cause.message))
        elif cause.reason in STORAGE_REASONS:
            said.append(no(STORAGE_REACHABLE, cause.reason, cause.message))
        elif run.stage == "Preflight" and why.reason == cause.reason != Reason.DEADLINE_EXCEEDED:
            said.append(no(VALIDATED, cause.reason, cause.message))
        fields.setdefault("progress", _without_eta(self._job.status.progress))
        return self._say(*said, run=run, error=cause, **fields)

    def concluded(self, run: QuantizeRunRecord, attempts: list[MethodAttempt], **fields: Any) -> QuantizeJobStatus:
        """All methods that had to be tried were; what comes of it is for gate and publisher to say."""
        said = no(RUNNING, Reason.SUCCEEDED, f"run {run.number} has tried {len(attempts)} of its methods")
        return self._say(self._resumed(), self._reachable(), said, run=run, error=None, attempts=attempts, **fields)

    def blocked(self, attempts: list[MethodAttempt], problem: Problem) -> QuantizeJobStatus:
        """The gate lets no result out; they are kept."""
        return self._say(
            self._resumed(),
            no(GATE_PASSED, problem.reason, problem.message),
            yes(FAILED, problem.reason, problem.message),
            yes(STALLED, problem.reason, problem.message),
            no(COMPLETE, problem.reason, "no method passed the gate"),
            no(PUBLISHED, problem.reason, "no method passed the gate")
            if self._job.spec.publish
            else no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"),
            attempts=attempts,
            error=ErrorDetail(reason=problem.reason, message=problem.message[:2048], field="spec.qualityGate"),
        )

    def settled(
        self, *said: Condition, chosen: MethodAttempt, attempts: list[MethodAttempt], complete: bool
    ) -> QuantizeJobStatus:
        """A method's result was let out: the job is complete, or waits for its Expert."""
        run, publish = self._job.status.run, self._job.spec.publish
        if run is None or chosen.artifact is None:
            raise AssertionError("what is let out was written by a run")
        published = next(c for c in said if c.type == PUBLISHED)
        end = (
            yes(COMPLETE, Reason.SUCCEEDED, f"{chosen.method}: {chosen.artifact.uri}")
            if complete
            else no(COMPLETE, published.reason, published.message)
        )
        there = publish is not None and published.status == "True"
        return self._say(
            self._resumed(),
            *said,
            end,
            run=run.model_copy(update={"chosen_method": chosen.method, "artifact": chosen.artifact}),
            error=None,
            attempts=attempts,
            chosen_method=chosen.method,
            artifact=chosen.artifact,
            artifact_run=run.number,
            expert_ref=ObjectRef(name=publish.expert.name) if publish and there else None,
        )

    def unchanged(self) -> QuantizeJobStatus:
        """The same again, said of this generation."""
        return self._say(*self._job.status.conditions, self._resumed())

    def _say(self, *said: Condition, **fields: Any) -> QuantizeJobStatus:
        """The status with what was *said*; the rest stays as it was, but a failure not said again is over."""
        old = self._job.status
        clear = (no(FAILED, Reason.PENDING, ""), no(STALLED, Reason.PENDING, ""))
        spoken = {c.type: c for c in (*self._at_first(), *old.conditions, *clear, *said)}
        run = fields.get("run", old.run)
        spoken[VALIDATED] = self._validated(spoken[VALIDATED], run)
        if run is None or run.outcome is None:  # what follows the run may be asked for, or not, at any time
            spoken |= {c.type: c for c in self._afterwards()}
            spoken[COMPLETE] = no(COMPLETE, Reason.PENDING, "the run has not ended")
        generation = self._job.metadata.generation
        new = changed(old, list(spoken.values()), generation=generation, now=self._now, **fields)
        phase, message = summary(new)
        shown = columns(new) | {"source_text": source_text(self._job)}
        return new.model_copy(update={"phase": phase, "message": message[:2048], **shown})

    def _validated(self, said: Condition, run: QuantizeRunRecord | None) -> Condition:
        """What holds goes before; when it is over, the condition is again what the run has found."""
        if self._hold is not None:
            return no(VALIDATED, self._hold.reason, self._hold.message)
        if said.reason not in HOLDS:
            return said
        passed = run is not None and run.prepared_uri is not None
        return yes(VALIDATED, Reason.CHECKED, "preflight has passed") if passed else self._unchecked()

    def _at_first(self) -> list[Condition]:
        """What is said of a run before anything is known."""
        return [
            no(COMPLETE, Reason.PENDING, "the run has not ended"),
            no(FAILED, Reason.PENDING, ""),
            self._resumed(),
            no(STALLED, Reason.PENDING, ""),
            self._unchecked(),
            unknown(STORAGE_REACHABLE, "not looked at yet"),
            unknown(DATASET_VALID, "known when preflight has read it"),
            no(RUNNING, Reason.PENDING, "the first attempt is about to be made"),
            *self._afterwards(),
        ]

    def _afterwards(self) -> list[Condition]:
        """What is said, until a run has succeeded, of what follows it."""
        return [
            no(GATE_PASSED, Reason.PENDING, "after the methods"),
            no(PUBLISHED, Reason.PENDING, "after the methods")
            if self._job.spec.publish
            else no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"),
            no(LEFTOVERS_REMOVED, Reason.PENDING, "after the run"),
        ]

    def _unchecked(self) -> Condition:
        return unknown(VALIDATED, "known when preflight has checked it")

    def _reachable(self) -> Condition:
        return yes(STORAGE_REACHABLE, Reason.READY, "all claims and ConfigMaps are there")

    def _resumed(self) -> Condition:
        return no(SUSPENDED, Reason.NOT_SUSPENDED, "")


def _closed(run: QuantizeRunRecord, now: datetime) -> QuantizeRunRecord:
    """A run's record for the history, without what only the newest needs; one that was stopped has no outcome."""
    update = {"completion_time": run.completion_time or now, "fields": {}, "active_since": None}
    return run.model_copy(update=update)


def _without_eta(progress: Progress | None) -> Progress | None:
    return progress and progress.model_copy(update={"eta": None, "eta_seconds": None})
