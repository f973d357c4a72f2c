"""What a FineTuneJob's status says in each situation: conditions first, phase and message derived from them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from largeforge.api.common import ErrorDetail, ObjectRef
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import DatasetSummary, FineTuneJobStatus, GateRecord, Progress, RunRecord, Usage
from largeforge.api.meta import Condition, condition
from largeforge.api.names import (
    COMPLETE,
    DATASET_VALID,
    FAILED,
    GATE_PASSED,
    PUBLISHED,
    RUNNING,
    STALLED,
    STORAGE_REACHABLE,
    SUSPENDED,
    VALIDATED,
    Reason,
)
from largeforge.api.redact import redact
from largeforge.api.run import RunResult
from largeforge.controllers.phases import base_text, no, rows_text, summary, unknown, yes
from largeforge.controllers.plan import changed
from largeforge.controllers.podstate import Problem
from largeforge.controllers.progress import progress_at_end

HISTORY = 10
_DATASET_REASONS = (Reason.DATASET_INVALID, Reason.DATASET_MISSING)
_STORAGE_REASONS = (Reason.STORAGE_NOT_READY, Reason.DISK_FULL)
HOLDS = (Reason.RERUN_REFUSED, Reason.REMOTE_CODE_NOT_ALLOWED, Reason.SERVICE_ACCOUNT_NOT_ALLOWED)
"""Why the spec that is there now starts nothing."""


class Speaker:
    """Makes statuses of one object at one time; each method is a situation."""

    def __init__(self, job: FineTuneJob, *, now: datetime, hold: Problem | None = None) -> None:
        self._job = job
        self._now = now
        self._hold = hold

    def begins(self, run: RunRecord) -> FineTuneJobStatus:
        """A run was given its number; all that was said of the one before is taken back, but for its artifact."""
        status = self._job.status
        before = [] if status.run is None else [_closed(status.run, self._now)]
        return self._say(
            *self._at_first(),
            run=run,
            history=[*before, *status.history][:HISTORY],
            error=None,
            metrics=[],
            progress=None,
            dataset=None,
            checkpoint=None,
            gate=None,
            resolved=None,
            usage=Usage(),
        )

    def held(self) -> FineTuneJobStatus:
        """The spec may not be run as it is: nothing is made until it changes."""
        if self._hold is None:
            raise AssertionError("there is a reason to hold")
        reason, message = self._hold.reason, self._hold.message
        return self._say(self._resumed(), no(RUNNING, reason, message), yes(STALLED, reason, message))

    def suspended(self, run: RunRecord, usage: Usage | None) -> FineTuneJobStatus:
        """The user holds the run: it has no Job."""
        message = f"run {run.number} is held; set spec.suspend: false to go on"
        return self._say(
            yes(SUSPENDED, Reason.SUSPENDED, message),
            no(RUNNING, Reason.SUSPENDED, "suspended"),
            run=run,
            usage=usage,
            progress=_without_eta(self._job.status.progress),
        )

    def waits_for_source(self, problem: Problem) -> FineTuneJobStatus:
        """What the run goes on from is not there."""
        return self._say(self._resumed(), no(RUNNING, problem.reason, problem.message))

    def lacks_storage(self, problem: Problem) -> FineTuneJobStatus:
        """What the run reads or writes is not there, or out of reach."""
        return self._say(
            self._resumed(),
            no(STORAGE_REACHABLE, problem.reason, problem.message),
            no(RUNNING, Reason.WAITING, "waiting for storage"),
        )

    def retries(
        self, run: RunRecord, cause: ErrorDetail, *, at: datetime, result: RunResult | None = None, **fields: Any
    ) -> FineTuneJobStatus:
        """An attempt ended badly; the next one is *run*'s. *fields* are of the moment at which it ended."""
        message = f"attempt {run.attempt} begins at {at:%H:%M:%S} UTC; the one before: {cause.message}"
        said = [self._resumed(), no(RUNNING, Reason.RETRYING, message[:4096])]
        if cause.reason in _STORAGE_REASONS:
            said.append(no(STORAGE_REACHABLE, cause.reason, cause.message))
        return self._say(*said, run=run, error=cause, dataset=self._dataset(result), **fields)

    def waits(self, run: RunRecord, message: str, **fields: Any) -> FineTuneJobStatus:
        """The attempt's pod is awaited."""
        return self._say(self._resumed(), self._reachable(), no(RUNNING, Reason.PENDING, message), run=run, **fields)

    def runs(self, run: RunRecord, note: str) -> FineTuneJobStatus:
        """The attempt's pod is at work; *note* is what preflight does without."""
        if run.stage == "Preflight":
            message = f"attempt {run.attempt} of preflight checks settings, base and data{note}"
            return self._say(self._resumed(), self._reachable(), no(RUNNING, Reason.PREFLIGHT, message))
        message = f"attempt {run.attempt} is training"
        return self._say(self._resumed(), self._reachable(), yes(RUNNING, Reason.RUNNING, message))

    def checked(self, run: RunRecord, result: RunResult) -> FineTuneJobStatus:
        """Preflight found nothing wrong: *run* is at its first attempt of training."""
        return self._say(
            self._resumed(),
            self._reachable(),
            *self._good(result),
            no(RUNNING, Reason.PENDING, "preflight has passed; training is about to begin"),
            run=run,
            error=None,
            dataset=result.dataset,
        )

    def held_up(self, problem: Problem) -> FineTuneJobStatus:
        """The pod does not start, or was not even made."""
        return self._say(self._resumed(), no(RUNNING, problem.reason, problem.message))

    def refused(self, message: str, *, publishing: bool) -> FineTuneJobStatus:
        """The API server takes what we make of the spec for wrong: only the user can help."""
        said = f"the API server refuses what this spec asks for: {redact(message)}"
        return self._say(
            no(PUBLISHED if publishing else RUNNING, Reason.REFUSED, said), yes(STALLED, Reason.REFUSED, said)
        )

    def failed(
        self, run: RunRecord, cause: ErrorDetail, why: Problem, *, result: RunResult | None, usage: Usage | None
    ) -> FineTuneJobStatus:
        """The run is over, without a result."""
        said = [
            self._resumed(),
            yes(FAILED, why.reason, why.message),
            yes(STALLED, why.reason, why.message),
            no(COMPLETE, why.reason, "the run failed"),
            no(RUNNING, why.reason, "the run failed"),
        ]
        if cause.reason in _DATASET_REASONS:
            said.append(no(DATASET_VALID, cause.reason, cause.message))
        elif cause.reason in _STORAGE_REASONS:
            said.append(no(STORAGE_REACHABLE, cause.reason, cause.message))
        elif why.reason == cause.reason != Reason.DEADLINE_EXCEEDED:  # the user's error
            said.append(no(VALIDATED, cause.reason, cause.message))
        status = self._job.status
        return self._say(
            *said,
            run=run,
            error=cause,
            usage=usage,
            dataset=self._dataset(result),
            checkpoint=(result.checkpoint if result is not None else None) or status.checkpoint,
            progress=_without_eta(status.progress),
        )

    def succeeded(self, run: RunRecord, result: RunResult, *, image: str, usage: Usage | None) -> FineTuneJobStatus:
        """The run has its result; whether it is complete is for gate and publisher to say."""
        status = self._job.status
        found = "found what an earlier attempt wrote" if result.adopted else "trained"
        commit = run.base.commit if run.base is not None else None
        facts = result.facts
        return self._say(
            self._resumed(),
            self._reachable(),
            *self._good(result),
            no(RUNNING, Reason.SUCCEEDED, f"run {run.number} {found}"),
            run=run,
            error=None,
            metrics=result.metrics,
            progress=progress_at_end(status.progress, result.metrics, now=self._now),
            dataset=self._dataset(result),
            checkpoint=result.checkpoint or status.checkpoint,
            resolved=facts
            and facts.model_copy(update={"image": facts.image or image, "base_commit": facts.base_commit or commit}),
            usage=usage,
        )

    def blocked(self, record: GateRecord, problem: Problem) -> FineTuneJobStatus:
        """The gate does not let the result out; the artifact is kept."""
        return self._say(
            self._resumed(),
            no(GATE_PASSED, problem.reason, problem.message),
            yes(FAILED, problem.reason, problem.message),
            yes(STALLED, problem.reason, problem.message),
            no(COMPLETE, problem.reason, "the gate did not pass"),
            no(PUBLISHED, problem.reason, "the gate did not pass")
            if self._job.spec.publish
            else no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"),
            gate=record,
            error=ErrorDetail(reason=problem.reason, message=problem.message[:2048], field="spec.gate"),
        )

    def settled(self, *said: Condition, complete: bool, gate: GateRecord | None) -> FineTuneJobStatus:
        """A run that succeeded and that the gate let out: complete, or waiting for its Expert."""
        run, publish = self._job.status.run, self._job.spec.publish
        if run is None:
            raise AssertionError("a run is settled after it ended")
        artifact = run.artifact or self._job.status.artifact
        published = next(c for c in said if c.type == PUBLISHED)
        end = (
            yes(COMPLETE, Reason.SUCCEEDED, f"trained: {artifact.uri if artifact else 'the artifact'}")
            if complete
            else no(COMPLETE, published.reason, published.message)
        )
        there = publish is not None and published.status == "True"
        return self._say(
            self._resumed(),
            *said,
            end,
            gate=gate,
            error=None,
            artifact=artifact,
            artifact_run=run.number,
            expert_ref=ObjectRef(name=publish.expert.name) if publish and there else None,
        )

    def unchanged(self) -> FineTuneJobStatus:
        """The same again, said of this generation."""
        return self._say(*self._job.status.conditions, self._resumed())

    def _say(self, *said: Condition, **fields: Any) -> FineTuneJobStatus:
        """The status with what was *said*; the rest stays as it was, but a failure not said again is over."""
        old = self._job.status
        clear = (no(FAILED, Reason.PENDING, ""), no(STALLED, Reason.PENDING, ""))
        spoken = {c.type: c for c in (*self._at_first(), *old.conditions, *clear, *said)}
        run = fields.get("run", old.run)
        spoken[VALIDATED] = self._validated(spoken[VALIDATED], run)
        if run is None or run.outcome is None:  # what follows the run may be asked for, or not, at any time
            spoken |= {c.type: c for c in self._afterwards()}
        generation = self._job.metadata.generation
        fields.setdefault("base", base_text(self._job))
        new = changed(old, list(spoken.values()), generation=generation, now=self._now, **fields)
        phase, message = summary(new)
        return new.model_copy(update={"phase": phase, "message": message[:2048]})

    def _validated(self, said: Condition, run: RunRecord | None) -> Condition:
        """What holds goes before; when it is over, the condition is again what the run has found."""
        if self._hold is not None:
            return no(VALIDATED, self._hold.reason, self._hold.message)
        if said.reason not in HOLDS:
            return said
        passed = run is not None and (run.stage == "Training" or run.outcome == "Succeeded")
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
        spec = self._job.spec
        return [
            no(GATE_PASSED, Reason.PENDING, "after the run")
            if spec.gate
            else no(GATE_PASSED, Reason.NOT_REQUESTED, "spec.gate is not set"),
            no(PUBLISHED, Reason.PENDING, "after the run")
            if spec.publish
            else no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"),
        ]

    def _good(self, result: RunResult) -> list[Condition]:
        """What a result says of settings and data."""
        before = condition(self._job.status.conditions, DATASET_VALID)
        known = before is not None and before.status == "True"
        notes = "".join(f"; {text}" for text in result.warnings)
        found = yes(DATASET_VALID, Reason.CHECKED, f"{rows_text(result.dataset)}{notes}"[:4096])
        # What preflight found is said with its warnings; training reads the same rows again.
        return [yes(VALIDATED, Reason.CHECKED, "preflight has passed"), before if known and before else found]

    def _dataset(self, result: RunResult | None) -> DatasetSummary | None:
        """What is known of the data; of the same rows preflight tells more than training."""
        known, told = self._job.status.dataset, result.dataset if result is not None else None
        if told is None or (known is not None and known.digest == told.digest):
            return known
        return told

    def _unchecked(self) -> Condition:
        return unknown(VALIDATED, "known when preflight has checked it")

    def _reachable(self) -> Condition:
        return yes(STORAGE_REACHABLE, Reason.READY, "all claims and ConfigMaps are there")

    def _resumed(self) -> Condition:
        return no(SUSPENDED, Reason.NOT_SUSPENDED, "")


def _closed(run: RunRecord, now: datetime) -> RunRecord:
    """A run's record for the history, without what only the newest needs; one that was stopped has no outcome."""
    artifact = run.artifact and run.artifact.model_copy(update={"probes": []})
    return run.model_copy(
        update={"completion_time": run.completion_time or now, "fields": {}, "artifact": artifact, "active_since": None}
    )


def _without_eta(progress: Progress | None) -> Progress | None:
    return progress and progress.model_copy(update={"eta": None, "eta_seconds": None})
