"""An attempt is over: the next stage, its result, the next attempt, or the end of the run. Pure."""

from __future__ import annotations

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import Reason
from largeforge.api.run import RunResult
from largeforge.controllers.attempts import Ending, pause_before
from largeforge.controllers.phases import rows_text
from largeforge.controllers.plan import Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.situation import Situation, at_attempt, over, used
from largeforge.kube.cluster import Manifest
from largeforge.resources.preflight import mounted_cache


def after_attempt(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest, ended: Ending) -> Plan:
    """What follows *ended*, the ending of *current*."""
    if ended.kind == "Succeeded" and ended.result is not None:
        if ended.result.artifact is None:
            return _begin_training(job, run, here, current, ended.result)
        return _succeed(job, run, here, current, ended)
    cause = ended.cause
    if ended.kind == "UserError":
        return _fail(job, run, here, (current, ended), Problem(cause.reason, cause.message))
    run = run.model_copy(update={"failures": run.failures + (ended.kind == "Failed")})
    if run.failures > job.spec.backoff_limit:
        message = (
            f"{run.failures} attempts failed, spec.backoffLimit is {job.spec.backoff_limit}; the last: {cause.message}"
        )
        return _fail(job, run, here, (current, ended), Problem(Reason.BACKOFF_LIMIT_EXCEEDED, message))
    return _try_again(job, run, here, current, ended)


def _succeed(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest, ended: Ending) -> Plan:
    result = ended.result
    assert result is not None  # noqa: S101 - the caller looked
    resumes = result.checkpoint.resumes if result.checkpoint is not None else run.resumes
    done = over(run, ended.time, outcome="Succeeded", artifact=result.artifact, resumes=resumes)
    image = current["spec"]["template"]["spec"]["containers"][0]["image"]
    usage = used(job, here, current)
    return Plan(status=here.speaker.succeeded(done, result, image=image, usage=usage), again_after=0)


def _try_again(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest, ended: Ending) -> Plan:
    result, cause = ended.result, ended.cause
    following = at_attempt(job, _resuming(job, run, ended), run.attempt + 1)
    said = f"attempt {run.attempt} of run {run.number} ended ({cause.reason}): {cause.message}"
    status = here.speaker.retries(
        following,
        cause,
        at=ended.time + pause_before(following.attempt),
        result=result,
        checkpoint=(result.checkpoint if result is not None else None) or job.status.checkpoint,
        usage=used(job, here, current),
        progress=None,
        metrics=[],
    )
    return Plan(events=[Event(Reason.RETRYING, said, "Warning")], status=status, again_after=0)


def _begin_training(job: FineTuneJob, run: RunRecord, here: Situation, current: Manifest, result: RunResult) -> Plan:
    """Preflight has passed: the commits and digests that it found hold for all attempts of training."""
    base, sources = run.base, result.sources
    if base is not None and sources is not None:
        found = {"commit": sources.base_commit or base.commit, "digest": sources.base_digest or None}
        base = base.model_copy(update=found)
    trained = run.model_copy(
        update={
            "stage": "Training",
            "base": base,
            "dataset_commits": sources.dataset_commits if sources is not None else [],
            "cached": mounted_cache(current),
        }
    )
    notes = "".join(f"; {text}" for text in result.warnings)
    said = f"preflight of run {run.number} has passed: {rows_text(result.dataset)}{notes}"
    return Plan(
        events=[Event(Reason.CHECKED, said)],
        status=here.speaker.checked(at_attempt(job, trained, 1), result),
        again_after=0,
    )


def _fail(job: FineTuneJob, run: RunRecord, here: Situation, last: tuple[Manifest, Ending], why: Problem) -> Plan:
    current, ended = last
    usage = used(job, here, current)
    status = here.speaker.failed(
        over(run, ended.time, outcome="Failed"), ended.cause, why, result=ended.result, usage=usage
    )
    return Plan(events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")], status=status)


def _resuming(job: FineTuneJob, run: RunRecord, ended: Ending) -> RunRecord:
    """*run* with the resumption counted that its next attempt is, where a checkpoint is known of."""
    known = ended.result.checkpoint if ended.result is not None else None
    if run.stage != "Training" or known is None or job.spec.checkpoint.resume == "Never":
        return run
    return run.model_copy(update={"resumes": known.resumes + 1})
