"""An attempt of a QuantizeJob is over: the next step, the next attempt, the next method, or the run's end. Pure."""

from __future__ import annotations

from largeforge.api.common import ErrorDetail
from largeforge.api.names import Reason
from largeforge.api.quantize import QuantizeResult
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import MethodAttempt, QuantizeRunRecord
from largeforge.controllers.attempts import pause_before
from largeforge.controllers.plan import Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.quantizeattempts import Ending
from largeforge.controllers.quantizegate import Next, conclude, errored, is_measured, judged, measured, words
from largeforge.controllers.quantizephases import calibration_text, doing_of
from largeforge.controllers.quantizesituation import Situation, at_attempt, at_step
from largeforge.controllers.situation import over


def after_attempt(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, ended: Ending) -> Plan:
    """What follows *ended*, the ending of the run's newest attempt."""
    if ended.kind == "Succeeded" and ended.result is not None:
        return _next_step(job, run, here, ended.result)
    cause = ended.cause
    if ended.kind == "UserError":
        return _give_up(job, run, here, ended, cause)
    run = run.model_copy(update={"failures": run.failures + (ended.kind == "Failed")})
    if run.failures > job.spec.backoff_limit:
        said = (
            f"{run.failures} attempts failed, spec.backoffLimit is {job.spec.backoff_limit}; the last: {cause.message}"
        )
        limit = ErrorDetail(reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=said[:2048], field=cause.field)
        return _give_up(job, run, here, ended, limit)
    following = at_attempt(job, run, run.attempt + 1)
    which = f"attempt {run.attempt} of run {run.number}, which {doing_of(job, run)},"
    said = f"{which} ended ({cause.reason}): {cause.message}"
    at = ended.time + pause_before(following.attempt)
    status = here.speaker.retries(following, cause, at=at, progress=None)
    return Plan(events=[Event(Reason.RETRYING, said, "Warning")], status=status, again_after=0)


def next_method(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, attempts: list[MethodAttempt]) -> Plan:
    """Begin the next method, or end the run where none has to be tried."""
    judgement = judged(job.spec.quality_gate, attempts)
    following = conclude(job.spec, judgement)
    if isinstance(following, Next):
        return begin_method(job, run, here, judgement, following.method)
    if is_measured(judgement):
        done = over(run, here.now, outcome="Succeeded")
        return Plan(status=here.speaker.concluded(done, judgement), again_after=0)
    why = Problem(Reason.QUANTIZE_FAILED, f"no method came to a result: {words(judgement)}"[:2048])
    cause = ErrorDetail(reason=why.reason, message=why.message, field="spec.methods")
    return Plan(
        events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")],
        status=here.speaker.failed(over(run, here.now, outcome="Failed"), cause, why, attempts=judgement),
    )


def begin_method(
    job: QuantizeJob, run: QuantizeRunRecord, here: Situation, attempts: list[MethodAttempt], method: int
) -> Plan:
    """Write down that *method* is next; its Job is made in the next pass."""
    begun = MethodAttempt(method=job.spec.methods[method])
    following = at_step(job, run, "Quantize", method)
    status = here.speaker.goes_on(following, attempts=[*attempts[:method], begun])
    return Plan(status=status, again_after=0)


def _next_step(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, result: QuantizeResult) -> Plan:
    attempts = list(job.status.attempts)
    if result.prepared is not None:
        prepared = result.prepared
        known = run.model_copy(update={"prepared_uri": prepared.uri, "windows_digest": prepared.windows_digest})
        said = f"preflight of run {run.number} has passed: {calibration_text(prepared.calibration)}"
        status = here.speaker.checked(at_step(job, known, "Evaluate", None), prepared, result.warnings)
        return Plan(events=[Event(Reason.CHECKED, said)], status=status, again_after=0)
    if run.method is None:
        begun = [MethodAttempt(method=job.spec.methods[0])]
        following = at_step(job, run, "Quantize", 0)
        status = here.speaker.goes_on(following, attempts=begun, evaluation=result.evaluation)
        return Plan(status=status, again_after=0)
    if result.artifact is not None:
        figures = {
            "artifact": result.artifact,
            "size_bytes": result.artifact.size_bytes,
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory_bytes or None,
        }
        attempts[run.method] = attempts[run.method].model_copy(update=figures)
        following = at_step(job, run, "Evaluate", run.method)
        status = here.speaker.goes_on(following, attempts=attempts, versions=result.versions)
        return Plan(status=status, again_after=0)
    before, after = job.status.evaluation, result.evaluation
    assert before is not None and after is not None  # noqa: S101, PT018 - the source was measured first
    attempts[run.method] = measured(attempts[run.method], before, after)
    plan = next_method(job, run, here, attempts)
    (verdict,) = judged(job.spec.quality_gate, [attempts[run.method]])
    said = f"{verdict.method}: {verdict.message}"
    passed = verdict.verdict == "Passed"
    return _with_event(plan, Event(verdict.reason, said) if passed else Event(verdict.reason, said, "Warning"))


def _give_up(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, ended: Ending, cause: ErrorDetail) -> Plan:
    """The step will not succeed: a method is followed by the next, anything else ends the run."""
    if run.method is None:
        said = f"the source cannot be measured: {cause.message}" if run.stage == "Evaluate" else cause.message
        why = Problem(cause.reason, said[:2048])
        failed = over(run, ended.time, outcome="Failed")
        status = here.speaker.failed(failed, cause, why)
        return Plan(events=[Event(why.reason, f"run {run.number} failed: {why.message}", "Warning")], status=status)
    attempts = list(job.status.attempts)
    attempts[run.method] = errored(attempts[run.method], cause)
    said = f"{attempts[run.method].method} of run {run.number} came to no result ({cause.reason}): {cause.message}"
    return _with_event(next_method(job, run, here, attempts), Event(cause.reason, said, "Warning"))


def _with_event(plan: Plan, event: Event) -> Plan:
    return Plan(delete=plan.delete, events=[event, *plan.events], status=plan.status, again_after=plan.again_after)
