"""What follows a run that ended: the gate, the Expert, and the removal of what nobody needs. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import FineTuneJobStatus, GateRecord, RunRecord
from largeforge.api.meta import Condition, condition
from largeforge.api.names import FAILED, GATE_PASSED, PUBLISHED, Reason
from largeforge.controllers import gate
from largeforge.controllers.finetunejobstatus import Speaker
from largeforge.controllers.observation import Observed
from largeforge.controllers.phases import no, yes
from largeforge.controllers.plan import Deletion, Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import CONFIGMAPS, JOBS, Manifest
from largeforge.resources.publishing import is_published_by, missing_of, published_expert

NAME_SECONDS = 60.0
"""How often a name that somebody else holds is looked at, and what the API server refused."""


def settle(job: FineTuneJob, run: RunRecord, observed: Observed, speaker: Speaker, *, now: datetime) -> Plan:
    """Judge and publish what the run wrote, and remove its children when their time is over."""
    plan = _judge(job, run, observed, speaker) if run.outcome == "Succeeded" else Plan(status=speaker.unchanged())
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None or run.completion_time is None:
        return plan
    left = (run.completion_time + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0:
        return replace(plan, again_after=min(filter(None, (plan.again_after, left))))
    jobs = map(job_deletion, filter(is_alive, observed.jobs.values()))
    return replace(plan, delete=[*jobs, *map(config_deletion, observed.configs)])


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
    publish, expert = job.spec.publish, observed.expert
    if publish is None:
        said = no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set")
        return _complete(job, speaker.settled(passed, said, complete=True, gate=record))
    name = publish.expert.name
    if expert is not None and not is_published_by(expert, job):
        message = f"spec.publish.expert.name: Expert {name!r} is another one's; choose another name, or delete it"
        said = no(PUBLISHED, Reason.NAME_TAKEN, message)
        status = speaker.settled(passed, said, complete=False, gate=record)
        return Plan(status=status, again_after=NAME_SECONDS)
    desired = published_expert(job, publish.expert)
    if expert is None:
        if record is not None and record.verdict == "Failed":
            said = no(PUBLISHED, passed.reason, f"Expert {name!r} is not made: {passed.message}")
            return _complete(job, speaker.settled(passed, said, complete=True, gate=record))
        said = no(PUBLISHED, Reason.PENDING, f"Expert {name!r} is being made")
        status = speaker.settled(passed, said, complete=False, gate=record)
        return Plan(publish=[desired], status=status, again_after=1)
    said = yes(PUBLISHED, Reason.PUBLISHED, f"Expert {name!r}")
    plan = _complete(job, speaker.settled(passed, said, complete=True, gate=record))
    lacking = missing_of(desired, expert)
    return plan if lacking is None else Plan(publish=[lacking], events=plan.events, status=plan.status)


def _complete(job: FineTuneJob, status: FineTuneJobStatus) -> Plan:
    was = job.status.phase == status.phase and job.status.artifact_run == status.artifact_run
    number = status.run.number if status.run else 0
    said = [] if was else [Event(Reason.SUCCEEDED, f"run {number}: {status.message}")]
    return Plan(events=said, status=status)


def _failure_event(job: FineTuneJob, run: RunRecord, why: Problem) -> list[Event]:
    before = condition(job.status.conditions, FAILED)
    if before is not None and before.status == "True" and before.reason == why.reason:
        return []
    return [Event(why.reason, f"run {run.number}: {why.message}", "Warning")]


def job_deletion(batch: Manifest) -> Deletion:
    """The deletion of exactly this Job; its pods go with it."""
    return Deletion(JOBS, batch["metadata"]["name"], batch["metadata"]["uid"])


def config_deletion(config: Manifest) -> Deletion:
    """The deletion of exactly this ConfigMap."""
    return Deletion(CONFIGMAPS, config["metadata"]["name"], config["metadata"]["uid"])


def is_alive(manifest: Manifest) -> bool:
    """Whether it is not on its way out already."""
    return "deletionTimestamp" not in manifest["metadata"]
