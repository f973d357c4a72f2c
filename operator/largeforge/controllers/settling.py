"""What follows a run that ended: the gate, the Expert, and the removal of what nobody needs. Pure."""

from __future__ import annotations

from datetime import datetime

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import FineTuneJobStatus, GateRecord, RunRecord
from largeforge.api.meta import Condition, condition
from largeforge.api.names import FAILED, GATE_PASSED, Reason
from largeforge.controllers import gate
from largeforge.controllers.finetunejobstatus import Speaker
from largeforge.controllers.observation import Observed
from largeforge.controllers.phases import no, yes
from largeforge.controllers.plan import Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.publication import publication
from largeforge.controllers.runchildren import all_of, at_their_time
from largeforge.resources.publishing import FINE_TUNED


def settle(job: FineTuneJob, run: RunRecord, observed: Observed, speaker: Speaker, *, now: datetime) -> Plan:
    """Judge and publish what the run wrote, and remove its children when their time is over."""
    plan = _judge(job, run, observed, speaker) if run.outcome == "Succeeded" else Plan(status=speaker.unchanged())
    children, ttl = all_of(observed.jobs, observed.configs), job.spec.ttl_seconds_after_finished
    return at_their_time(plan, children, ended=run.completion_time, ttl_seconds=ttl, now=now)


def _judge(job: FineTuneJob, run: RunRecord, observed: Observed, speaker: Speaker) -> Plan:
    """A result that the gate has let out once stays out: a stricter gate is said, but takes no Expert down."""
    spec, status = job.spec, job.status
    record = gate.judge(spec.gate, status.metrics) if spec.gate is not None else None
    problem = _failing(record)
    if record is not None and problem is not None and record.verdict == "Failed" and status.artifact_run != run.number:
        uri = run.artifact.uri if run.artifact is not None else "the output"
        remedy = f"the artifact is kept at {uri}; loosen spec.gate to let it out without a new run"
        said = Problem(problem.reason, f"{problem.message}; {remedy}")
        return Plan(events=_failure_event(job, run, said), status=speaker.blocked(record, said))
    passed = _gate_condition(record, problem)
    return _publish(job, observed, speaker, record, passed)


def _failing(record: GateRecord | None) -> Problem | None:
    if record is None or record.verdict == "Passed":
        return None
    reason = Reason.GATE_FAILED if gate.is_measured(record) else Reason.NOT_EVALUATED
    return Problem(reason, gate.words(record))


def _gate_condition(record: GateRecord | None, problem: Problem | None) -> Condition:
    if record is None:
        return no(GATE_PASSED, Reason.NOT_REQUESTED, "spec.gate is not set")
    if problem is None:
        return yes(GATE_PASSED, Reason.GATE_PASSED, gate.words(record))
    why = "spec.gate.onFailure is Warn" if record.verdict == "Warned" else "it was let out before the gate changed"
    return no(GATE_PASSED, problem.reason, f"{problem.message}; {why}")


def _publish(
    job: FineTuneJob, observed: Observed, speaker: Speaker, record: GateRecord | None, passed: Condition
) -> Plan:
    """A run is complete when its Expert, if one is asked for, is there and ours."""
    wish = job.spec.publish.expert if job.spec.publish is not None else None
    withheld = passed if record is not None and record.verdict == "Failed" else None
    found = publication(job, wish, observed.expert, how=FINE_TUNED, withheld=withheld)
    status = speaker.settled(passed, found.said, complete=found.complete, gate=record)
    events = _completed(job, status) if found.complete else []
    return Plan(publish=found.publish, events=events, status=status, again_after=found.again_after)


def _completed(job: FineTuneJob, status: FineTuneJobStatus) -> list[Event]:
    was = job.status.phase == status.phase and job.status.artifact_run == status.artifact_run
    number = status.run.number if status.run else 0
    return [] if was else [Event(Reason.SUCCEEDED, f"run {number}: {status.message}")]


def _failure_event(job: FineTuneJob, run: RunRecord, why: Problem) -> list[Event]:
    before = condition(job.status.conditions, FAILED)
    if before is not None and before.status == "True" and before.reason == why.reason:
        return []
    return [Event(why.reason, f"run {run.number}: {why.message}", "Warning")]
