"""A run: how it begins, and what it does until it ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from largeforge.api.common import ErrorDetail
from largeforge.api.digest import changed_fields, field_digests
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import Reason
from largeforge.controllers import runsources
from largeforge.controllers.attempts import ending, has_ended
from largeforge.controllers.holds import listed
from largeforge.controllers.making import leftovers, make_attempt
from largeforge.controllers.plan import Deletion, Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.runchildren import all_of, is_alive
from largeforge.controllers.runendings import after_attempt
from largeforge.controllers.situation import Situation, at_attempt, inactive, over, remaining, used
from largeforge.controllers.watching import watch_attempt
from largeforge.kube.cluster import JOBS, Manifest


def begin(job: FineTuneJob, here: Situation, *, digest: str) -> Plan:
    """Stop what runs, and give the next run its number."""
    before, fields = job.status.run, field_digests(job.spec)
    number = 1 if before is None else before.number + 1
    base = runsources.plain(job.spec.base)
    run = RunRecord(
        number=number,
        digest=digest,
        start_time=here.now,
        active_since=here.now if base is not None else None,
        base=base,
        fields=fields,
    )
    changed = _changed(before, fields)
    return Plan(
        delete=all_of(here.observed.jobs, here.observed.configs),
        events=[Event(Reason.STARTED, f"run {number} begins{changed}")],
        status=here.speaker.begins(at_attempt(job, run, 1)),
    )


def go_on(job: FineTuneJob, run: RunRecord, here: Situation) -> Plan:
    """Bring a run that has not ended a step further."""
    current = here.observed.jobs.get(run.job_name)
    ended = current and ending(current, here.observed.pods, run=run, output_uri=job.spec.output.uri)
    if current is not None and ended:
        return after_attempt(job, run, here, current, ended)
    left = remaining(job.spec.active_deadline_seconds, run, here.now)
    if left is not None and left <= 0:
        return _overdue(job, run, here, current)
    if job.spec.suspend:
        return _suspend(job, run, here, current)
    plan = make_attempt(job, run, here) if current is None else watch_attempt(job, run, here, current)
    waits = [seconds for seconds in (plan.again_after, left) if seconds is not None]
    return replace(plan, again_after=min(waits, default=None))


def _suspend(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest | None) -> Plan:
    """No Job while the user holds the run. The attempt that is stopped has used up its number, but counts for nothing.

    It is stopped in the next pass, once its number is.
    """
    still = inactive(run, here.now)
    usage = job.status.usage
    if current is None:
        return Plan(delete=leftovers(here.observed, run), status=here.speaker.suspended(still, usage))
    said = f"attempt {run.attempt} of run {run.number} is stopped: spec.suspend is true"
    return Plan(
        events=[Event(Reason.SUSPENDED, said)],
        status=here.speaker.suspended(at_attempt(job, still, run.attempt + 1), used(job, here, current)),
        again_after=0,
    )


def _overdue(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest | None) -> Plan:
    """The run was active for too long: what still runs is stopped, and a checkpoint stays for a run to come."""
    why = Problem(
        Reason.DEADLINE_EXCEEDED,
        f"run {run.number} was active for more than spec.activeDeadlineSeconds ({job.spec.active_deadline_seconds} s);"
        " raise it and create the object anew: the same run goes on from its checkpoint",
    )
    ended = over(run, here.now, outcome="Failed")
    cause = ErrorDetail(reason=why.reason, message=why.message, field="spec.activeDeadlineSeconds")
    running = [batch for batch in here.observed.jobs.values() if is_alive(batch) and not has_ended(batch)]
    usage = used(job, here, current) if current is not None else job.status.usage
    return Plan(
        delete=[Deletion.of(JOBS, batch) for batch in running],
        events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")],
        status=here.speaker.failed(ended, cause, why, result=None, usage=usage),
    )


def _changed(before: RunRecord | None, fields: Mapping[str, str]) -> str:
    if before is None:
        return ""
    names = changed_fields(before.fields, fields) if before.fields else []
    return f": {listed(names)} changed" if names else ": a field that decides the result has changed"
