"""FineTuneJob: runs, their attempts, and the Expert that is made of a complete one.

A number (of a run, of an attempt) is written into status in one pass and used in the next: wherever the operator is
killed in between, no number stands for two different things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJob, FineTuneJobStatus, RunRecord
from largeforge.api.meta import Condition
from largeforge.api.names import ATTEMPT_LABEL, FINETUNEJOB_LABEL, PUBLISHED, RUN_LABEL, Reason
from largeforge.controllers.attempts import Ending, ending, has_ended, pause_before
from largeforge.controllers.context import Context
from largeforge.controllers.finetunejobstatus import Speaker
from largeforge.controllers.plan import Deletion, Event, Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem, is_running, problem
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import (
    CONFIGMAPS,
    EXPERTS,
    FINETUNEJOBS,
    JOBS,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    Cluster,
    Invalid,
    Manifest,
)
from largeforge.resources.names import training_job_name
from largeforge.resources.owner import controller_uid
from largeforge.resources.publishing import is_published_by, missing_of, published_expert
from largeforge.resources.training import needed_claims, needed_config_maps, run_config_map, training_job

STORAGE_SECONDS = 15.0
"""Claims and ConfigMaps of users are not watched: how often a missing one is looked for."""
NAME_SECONDS = 60.0
"""The same for a name that somebody else holds, and for what the API server refused."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a decision is made of, beside the object."""

    jobs: Mapping[str, Manifest] = field(default_factory=dict)
    """Jobs that this object controls, by name."""
    pods: Sequence[Manifest] = ()
    """Pods with its label; whose they are, `ending` and `_pods_of` check."""
    expert: Manifest | None = None
    """What bears the name that is to be published."""
    missing: Problem | None = None
    """The first thing that the run needs and the cluster lacks; looked for only where a Job is to be made."""


async def reconcile(key: Key, context: Context) -> float | None:
    """Bring one FineTuneJob a step further."""
    raw = await context.cluster.get(FINETUNEJOBS, key.namespace, key.name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # what it made goes with it, by owner references
    now = context.now()
    job = read(FineTuneJob, raw)
    if isinstance(job, ValidationError):
        await report_unreadable(context.cluster, raw, job, now=now)
        return None
    observed = await observe(context.cluster, job)
    plan = decide(job, observed, settings=context.settings, now=now)
    try:
        await execute(plan, context.cluster, raw, now=now)
    except Invalid as exc:
        if plan.empty:
            raise  # the status itself: a mistake of ours
        said = Speaker(job, now=now).refused(str(exc), publishing=bool(plan.publish))
        await execute(Plan(status=said), context.cluster, raw, now=now)
        return NAME_SECONDS
    return plan.again_after


async def observe(cluster: Cluster, job: FineTuneJob) -> Observed:
    """Read all that `decide` needs."""
    namespace, name, run = job.metadata.namespace, job.metadata.name, job.status.run
    labels = {FINETUNEJOB_LABEL: name}
    listed = await cluster.list(JOBS, namespace, labels=labels)
    jobs = {j["metadata"]["name"]: j for j in listed if controller_uid(j) == job.metadata.uid}
    publish = job.spec.publish
    begins = run is not None and run.outcome is None and run.job_name not in jobs
    return Observed(
        jobs=jobs,
        pods=await cluster.list(PODS, namespace, labels=labels) if jobs else (),
        expert=await cluster.get(EXPERTS, namespace, publish.expert.name) if publish else None,
        missing=await _missing(cluster, job) if begins else None,
    )


async def _missing(cluster: Cluster, job: FineTuneJob) -> Problem | None:
    namespace = job.metadata.namespace
    for claim, where in needed_claims(job).items():
        found = await cluster.get(PERSISTENTVOLUMECLAIMS, namespace, claim)
        if found is None:
            return Problem(
                Reason.STORAGE_NOT_READY,
                f"{where}: no PersistentVolumeClaim {claim!r} in namespace {namespace!r}; create it to start the run",
            )
        if found.get("status", {}).get("phase") == "Lost":
            return Problem(Reason.STORAGE_NOT_READY, f"{where}: PersistentVolumeClaim {claim!r} has lost its volume")
    for uri, where in needed_config_maps(job):
        found = await cluster.get(CONFIGMAPS, namespace, uri.name)
        if found is None:
            return Problem(
                Reason.DATASET_MISSING,
                f"{where}: no ConfigMap {uri.name!r} in namespace {namespace!r}; create it to start the run",
            )
        if uri.key not in {**found.get("data", {}), **found.get("binaryData", {})}:
            return Problem(Reason.DATASET_MISSING, f"{where}: ConfigMap {uri.name!r} has no key {uri.key!r}")
    return None


def decide(job: FineTuneJob, observed: Observed, *, settings: Settings, now: datetime) -> Plan:
    """What to write so that the cluster does what *job* says. Every rule about runs and attempts is below."""
    digest, run = run_digest(job.spec), job.status.run
    if run is None or run.digest != digest:
        return _begin_run(job, observed, digest, now=now)
    speaker = Speaker(job, now=now)
    current = observed.jobs.get(run.job_name)
    if run.outcome is not None:
        succeeded = run.outcome == "Succeeded"
        return _settle(job, observed, speaker) if succeeded else Plan(status=speaker.unchanged())
    ended = None if current is None else ending(current, observed.pods, run=run, output_uri=job.spec.output.uri)
    if current is not None and ended is not None:
        return _after_attempt(job, speaker, ended)
    if job.spec.suspend:
        return _suspend(job, observed, speaker, current)
    if current is None:
        return _make_attempt(job, observed, speaker, settings=settings, now=now)
    return Plan(delete=_leftovers(observed, run), status=_progress(run, observed, speaker, current))


def _begin_run(job: FineTuneJob, observed: Observed, digest: str, *, now: datetime) -> Plan:
    """Stop what runs, and give the next run its number."""
    before = job.status.run
    number = 1 if before is None else before.number + 1
    run = _attempt(job, RunRecord(number=number, digest=digest, start_time=now), 1)
    said = f"run {number} begins" + ("" if before is None else ": a field that decides the result has changed")
    return Plan(
        delete=[_deletion(j) for j in observed.jobs.values() if _alive(j)],
        events=[Event(Reason.STARTED, said)],
        status=Speaker(job, now=now).begins(run),
    )


def _make_attempt(job: FineTuneJob, observed: Observed, speaker: Speaker, *, settings: Settings, now: datetime) -> Plan:
    """The Job of the attempt that status names, once its time has come and what it needs is there."""
    run = _run(job)
    before = observed.jobs.get(training_job_name(job.metadata.name, run.number, run.attempt - 1))
    last = before and ending(before, observed.pods, run=run, output_uri=job.spec.output.uri)
    if last:
        at = last.time + pause_before(run.attempt)
        if now < at:
            return Plan(status=speaker.retries(run, last.cause, at=at), again_after=(at - now).total_seconds())
    if observed.missing is not None:
        return Plan(status=speaker.lacks_storage(observed.missing), again_after=STORAGE_SECONDS)
    return Plan(
        delete=_leftovers(observed, run),
        prepare=[run_config_map(job, run)],
        create=[training_job(job, run, image=settings.trainer_image, pull_policy=settings.image_pull_policy)],
        status=speaker.waits(run.attempt),
    )


def _progress(run: RunRecord, observed: Observed, speaker: Speaker, current: Manifest) -> FineTuneJobStatus:
    """What the attempt's pod does at the moment."""
    pods = [p for p in observed.pods if controller_uid(p) == current["metadata"]["uid"]]
    for pod in pods:
        held = problem(pod)
        if held is not None:
            return speaker.held_up(held)
    return speaker.runs(run.attempt) if any(map(is_running, pods)) else speaker.waits(run.attempt)


def _suspend(job: FineTuneJob, observed: Observed, speaker: Speaker, current: Manifest | None) -> Plan:
    """No Job while the user holds the run. The attempt that is stopped has used up its number, but counts for nothing.

    It is stopped in the next pass, once its number is.
    """
    run = _run(job)
    if current is None:
        return Plan(delete=_leftovers(observed, run), status=speaker.suspended(run))
    return Plan(
        events=[Event(Reason.SUSPENDED, f"attempt {run.attempt} of run {run.number} is stopped: spec.suspend is true")],
        status=speaker.suspended(_attempt(job, run, run.attempt + 1)),
        again_after=0,
    )


def _after_attempt(job: FineTuneJob, speaker: Speaker, ended: Ending) -> Plan:
    """An attempt is over: its result, the next one, or the end of the run."""
    run, cause = _run(job), ended.cause
    if ended.kind == "Succeeded" and ended.result is not None:
        done = run.model_copy(update={"outcome": "Succeeded", "completion_time": ended.time})
        return Plan(status=speaker.succeeded(done, ended.result), again_after=0)
    if ended.kind == "UserError":
        return _fail(speaker, run, ended, Problem(cause.reason, cause.message))
    counted = ended.kind == "Failed"
    failures = run.failures + counted
    if failures > job.spec.backoff_limit:
        message = (
            f"{failures} attempts failed, spec.backoffLimit is {job.spec.backoff_limit}; the last: {cause.message}"
        )
        run = run.model_copy(update={"failures": failures})
        return _fail(speaker, run, ended, Problem(Reason.BACKOFF_LIMIT_EXCEEDED, message))
    following = _attempt(job, run.model_copy(update={"failures": failures}), run.attempt + 1)
    at = ended.time + pause_before(following.attempt)
    said = f"attempt {run.attempt} of run {run.number} ended ({cause.reason}): {cause.message}"
    return Plan(
        events=[Event(Reason.RETRYING, said, "Warning")],
        status=speaker.retries(following, cause, at=at),
    )


def _fail(speaker: Speaker, run: RunRecord, ended: Ending, why: Problem) -> Plan:
    over = run.model_copy(update={"outcome": "Failed", "completion_time": ended.time})
    return Plan(
        events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")],
        status=speaker.failed(over, ended.cause, why),
    )


def _settle(job: FineTuneJob, observed: Observed, speaker: Speaker) -> Plan:
    """A run that succeeded is complete when its Expert, if one is asked for, is there and ours."""
    publish, expert = job.spec.publish, observed.expert
    if publish is None:
        said = Condition(type=PUBLISHED, status="False", reason=Reason.NOT_REQUESTED, message="spec.publish is not set")
        return _complete(job, speaker.publishing(said, complete=True))
    name = publish.expert.name
    if expert is not None and not is_published_by(expert, job):
        message = f"spec.publish.expert.name: Expert {name!r} is another one's; choose another name, or delete it"
        said = Condition(type=PUBLISHED, status="False", reason=Reason.NAME_TAKEN, message=message)
        new = not any(c.type == PUBLISHED and c.reason == Reason.NAME_TAKEN for c in job.status.conditions)
        return Plan(
            events=[Event(Reason.NAME_TAKEN, message, "Warning")] if new else [],
            status=speaker.publishing(said, complete=False),
            again_after=NAME_SECONDS,
        )
    desired = published_expert(job, publish.expert)
    if expert is None:
        said = Condition(
            type=PUBLISHED, status="False", reason=Reason.PENDING, message=f"Expert {name!r} is being made"
        )
        return Plan(publish=[desired], status=speaker.publishing(said, complete=False), again_after=1)
    said = Condition(type=PUBLISHED, status="True", reason=Reason.PUBLISHED, message=f"Expert {name!r}")
    lacking = missing_of(desired, expert)
    plan = _complete(job, speaker.publishing(said, complete=True))
    return plan if lacking is None else Plan(publish=[lacking], events=plan.events, status=plan.status)


def _complete(job: FineTuneJob, status: FineTuneJobStatus) -> Plan:
    was = job.status.phase == status.phase and job.status.run == status.run
    return Plan(
        events=[] if was else [Event(Reason.SUCCEEDED, f"run {_number(status)}: {status.message}")], status=status
    )


def _leftovers(observed: Observed, run: RunRecord) -> list[Deletion]:
    """Jobs of ours beside the attempt's that go on, or that nobody needs: logs are kept of the last attempt only."""
    others = (j for name, j in observed.jobs.items() if name != run.job_name and _alive(j))
    return [_deletion(j) for j in others if not has_ended(j) or _position(j) < (run.number, run.attempt - 1)]


def _position(job: Manifest) -> tuple[int, int]:
    """Run and attempt of a Job of ours."""
    labels = job["metadata"]["labels"]
    return int(labels[RUN_LABEL]), int(labels[ATTEMPT_LABEL])


def _attempt(job: FineTuneJob, run: RunRecord, attempt: int) -> RunRecord:
    name = training_job_name(job.metadata.name, run.number, attempt)
    return run.model_copy(update={"attempt": attempt, "job_name": name})


def _run(job: FineTuneJob) -> RunRecord:
    if job.status.run is None:
        raise AssertionError("a run is begun before anything is done for it")
    return job.status.run


def _number(status: FineTuneJobStatus) -> int:
    return status.run.number if status.run else 0


def _deletion(job: Manifest) -> Deletion:
    return Deletion(JOBS, job["metadata"]["name"], job["metadata"]["uid"])


def _alive(job: Manifest) -> bool:
    return "deletionTimestamp" not in job["metadata"]
