"""A run of a QuantizeJob: how it begins, and what it does until it ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from largeforge.api.common import ErrorDetail
from largeforge.api.digest import changed_fields
from largeforge.api.names import ATTEMPT_LABEL, RUN_LABEL, Reason
from largeforge.api.quantizedigest import field_digests
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeRunRecord
from largeforge.controllers import runsources
from largeforge.controllers.attempts import has_ended, pause_before
from largeforge.controllers.holds import listed
from largeforge.controllers.making import STORAGE_SECONDS
from largeforge.controllers.plan import Deletion, Event, Plan
from largeforge.controllers.podstate import Problem, is_over, lost_node
from largeforge.controllers.quantizeattempts import ending
from largeforge.controllers.quantizeendings import after_attempt
from largeforge.controllers.quantizephases import doing_of
from largeforge.controllers.quantizesituation import Situation, at_attempt
from largeforge.controllers.quantizewatching import watch_attempt
from largeforge.controllers.runchildren import all_of, is_alive
from largeforge.controllers.situation import inactive, over, remaining
from largeforge.kube.cluster import JOBS, Manifest
from largeforge.resources.quantizeconfig import step_config_map
from largeforge.resources.quantizepod import step_job
from largeforge.resources.quantizestorage import needs_cache


def begin(job: QuantizeJob, here: Situation, *, digest: str) -> Plan:
    """Stop what runs, and give the next run its number."""
    before, fields = job.status.run, field_digests(job.spec)
    number = 1 if before is None else before.number + 1
    base = runsources.plain(job.spec.source)
    run = QuantizeRunRecord(
        number=number,
        digest=digest,
        start_time=here.now,
        active_since=here.now if base is not None else None,
        base=base,
        fields=fields,
    )
    return Plan(
        delete=all_of(here.observed.jobs, here.observed.configs),
        events=[Event(Reason.STARTED, f"run {number} begins{_changed(before, fields)}")],
        status=here.speaker.begins(at_attempt(job, run, 1)),
    )


def go_on(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """Bring a run that has not ended a step further."""
    current = here.observed.jobs.get(run.job_name)
    ended = current and ending(current, here.observed.pods, job=job, run=run, now=here.now)
    if current is not None and ended:
        return after_attempt(job, run, here, ended)
    left = remaining(job.spec.active_deadline_seconds, run, here.now)
    if left is not None and left <= 0:
        return _overdue(job, run, here)
    if job.spec.suspend:
        return _suspend(job, run, here, current)
    if current is None:
        plan = _make_attempt(job, run, here)
    else:
        plan = replace(watch_attempt(job, run, here, current), delete=_leftovers(run, here))
    waits = [seconds for seconds in (plan.again_after, left) if seconds is not None]
    return replace(plan, again_after=min(waits, default=None))


def _make_attempt(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """The Job of the attempt that status names, or what it waits for.

    A number is written into status in one pass and used in the next: wherever the operator is killed in between, no
    number stands for two different things.
    """
    if here.hold is not None:
        return Plan(status=here.speaker.held())
    if run.base is None:
        return _find_source(job, run, here)
    if run.active_since is None:
        resumed = run.model_copy(update={"active_since": here.now})
        said = f"run {run.number} goes on: attempt {run.attempt} {doing_of(job, run)}"
        status = here.speaker.goes_on(resumed)
        return Plan(events=[Event(Reason.STARTED, said)], status=status, again_after=0)
    waiting = _pause(job, run, here) or _wait_for_pods(run, here) or _wait_for_storage(here)
    if waiting is not None:
        return waiting
    return Plan(
        delete=_leftovers(run, here),
        prepare=[step_config_map(job, run, progress=here.progress)],
        create=[step_job(job, run, images=here.images, progress=here.progress)],
        status=here.speaker.waits(run, f"attempt {run.attempt} waits for its pod: it {doing_of(job, run)}"),
    )


def _find_source(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """What the run begins with, once it is there."""
    place = runsources.Place(job.metadata.namespace, "spec.source")
    found = runsources.resolve(job.spec.source, here.observed.sources, place)
    if isinstance(found, Problem):
        return Plan(status=here.speaker.held_up(found), again_after=STORAGE_SECONDS)
    known = run.model_copy(update={"base": found, "active_since": here.now})
    if needs_cache(known) and job.spec.cache is None:
        said = (
            f"spec.cache: the source comes to {found.uri}, which quantizer and engine read from a cache; set cache.uri"
        )
        return Plan(status=here.speaker.held_up(Problem(Reason.INVALID_CONFIG, said)), again_after=STORAGE_SECONDS)
    return Plan(status=here.speaker.goes_on(known), again_after=0)


def _pause(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan | None:
    """The time between two attempts of a step."""
    observed = here.observed
    before = observed.jobs.get(at_attempt(job, run, run.attempt - 1).job_name)
    last = before and ending(before, observed.pods, job=job, run=run, now=here.now)
    if not last:
        return None
    at = last.time + pause_before(run.attempt)
    if here.now >= at:
        return None
    status = here.speaker.retries(run, last.cause, at=at)
    return Plan(status=status, again_after=(at - here.now).total_seconds())


def _wait_for_pods(run: QuantizeRunRecord, here: Situation) -> Plan | None:
    """Two pods must not write to one folder: the one before has to be over."""
    pod = next((pod for pod in here.observed.pods if not is_over(pod)), None)
    if pod is None:
        return None
    lost = lost_node(pod)
    message = f"attempt {run.attempt} waits for pod {pod['metadata']['name']!r} of an earlier one to end"
    status = here.speaker.held_up(lost) if lost is not None else here.speaker.waits(run, message)
    return Plan(delete=_leftovers(run, here), status=status, again_after=STORAGE_SECONDS)


def _wait_for_storage(here: Situation) -> Plan | None:
    if here.observed.blocked is None:
        return None
    return Plan(status=here.speaker.lacks_storage(here.observed.blocked), again_after=STORAGE_SECONDS)


def _suspend(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, current: Manifest | None) -> Plan:
    """No Job while the user holds the run. The attempt that is stopped has used up its number, but counts for nothing.

    It is stopped in the next pass, once its number is.
    """
    still = inactive(run, here.now)
    if current is None:
        return Plan(delete=_leftovers(run, here), status=here.speaker.suspended(still))
    said = f"attempt {run.attempt} of run {run.number}, which {doing_of(job, run)}, is stopped: spec.suspend is true"
    return Plan(
        events=[Event(Reason.SUSPENDED, said)],
        status=here.speaker.suspended(at_attempt(job, still, run.attempt + 1)),
        again_after=0,
    )


def _overdue(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """The run was active for too long: what still runs is stopped."""
    why = Problem(
        Reason.DEADLINE_EXCEEDED,
        f"run {run.number} was active for more than spec.activeDeadlineSeconds ({job.spec.active_deadline_seconds} s);"
        " raise it and create the object anew: results that are whole are found again",
    )
    cause = ErrorDetail(reason=why.reason, message=why.message, field="spec.activeDeadlineSeconds")
    running = [batch for batch in here.observed.jobs.values() if is_alive(batch) and not has_ended(batch)]
    return Plan(
        delete=[Deletion.of(JOBS, batch) for batch in running],
        events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")],
        status=here.speaker.failed(over(run, here.now, outcome="Failed"), cause, why),
    )


def _leftovers(run: QuantizeRunRecord, here: Situation) -> list[Deletion]:
    """Jobs of ours beside the attempt's that go on, or that nobody needs.

    What is kept, for its logs: of this run, the attempt before, and each that ended well.
    """
    others = [batch for name, batch in here.observed.jobs.items() if name != run.job_name and is_alive(batch)]
    return [Deletion.of(JOBS, batch) for batch in others if not has_ended(batch) or not _is_kept(batch, run)]


def _is_kept(batch: Manifest, run: QuantizeRunRecord) -> bool:
    labels, name = batch["metadata"]["labels"], batch["metadata"]["name"]
    if labels.get(RUN_LABEL) != str(run.number):
        return False  # of an earlier run, or one that removes what an earlier run left
    if name.rpartition("-a")[0] == run.job_name.rpartition("-a")[0]:
        return int(labels[ATTEMPT_LABEL]) >= run.attempt - 1
    return True


def _changed(before: QuantizeRunRecord | None, fields: Mapping[str, str]) -> str:
    if before is None:
        return ""
    names = changed_fields(before.fields, fields) if before.fields else []
    return f": {listed(names)} changed" if names else ": a field that decides the result has changed"
