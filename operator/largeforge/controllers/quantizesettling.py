"""What follows a QuantizeJob's run that ended: the gate, the Expert, and the removal of what nobody needs. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from largeforge.api.meta import Condition, condition
from largeforge.api.names import FAILED, GATE_PASSED, PUBLISHED, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import MethodAttempt, QuantizeJobStatus, QuantizeRunRecord
from largeforge.controllers.phases import no, yes
from largeforge.controllers.plan import Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.quantizeendings import begin_method
from largeforge.controllers.quantizegate import Chosen, Next, conclude, judged, words
from largeforge.controllers.quantizesituation import Situation
from largeforge.controllers.settling import NAME_SECONDS, config_deletion, is_alive, job_deletion
from largeforge.resources.publishing import QUANTIZED, is_published_by, missing_of, published_expert


def settle(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """Judge and publish what the run wrote, and remove its children when their time is over."""
    plan = _judge(job, run, here) if run.outcome == "Succeeded" else Plan(status=here.speaker.unchanged())
    ttl = job.spec.ttl_seconds_after_finished
    settled = plan.status is not None and getattr(plan.status, "run").outcome is not None  # noqa: B009
    if ttl is None or run.completion_time is None or not settled:
        return plan
    left = (run.completion_time + timedelta(seconds=ttl) - here.now).total_seconds()
    if left > 0:
        return replace(plan, again_after=min(filter(None, (plan.again_after, left))))
    jobs = map(job_deletion, filter(is_alive, here.observed.jobs.values()))
    return replace(plan, delete=[*jobs, *map(config_deletion, here.observed.configs)])


def _judge(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """The recorded figures decide anew in every pass; what was let out once stays out.

    A stricter gate is said, but takes no Expert down. A looser one lets a kept result out, or a method be tried that
    `onFailure: Fail` had kept from it.
    """
    attempts = judged(job.spec.quality_gate, job.status.attempts)
    out = next((a for a in attempts if a.method == run.chosen_method), None)
    if out is not None and job.status.artifact_run == run.number:
        return _publish(job, here, out, attempts)
    found = conclude(job.spec, attempts)
    if isinstance(found, Next):
        reopened = run.model_copy(update={"outcome": None, "completion_time": None, "active_since": here.now})
        return begin_method(job, reopened, here, attempts, found.method)
    if isinstance(found, Chosen):
        return _publish(job, here, attempts[found.method], attempts)
    return _blocked(job, run, here, attempts)


def _blocked(job: QuantizeJob, run: QuantizeRunRecord, here: Situation, attempts: list[MethodAttempt]) -> Plan:
    remedy = "the results are kept; loosen spec.qualityGate to let one out without a new run"
    why = Problem(Reason.GATE_FAILED, f"{words(attempts)}; {remedy}"[:4096])
    before = condition(job.status.conditions, FAILED)
    said_already = before is not None and before.status == "True" and before.reason == why.reason
    events = [] if said_already else [Event(why.reason, f"run {run.number}: {why.message}", "Warning")]
    return Plan(events=events, status=here.speaker.blocked(attempts, why))


def _gate_condition(chosen: MethodAttempt) -> Condition:
    if chosen.verdict == "Passed":
        return yes(GATE_PASSED, Reason.GATE_PASSED, f"{chosen.method}: {chosen.message}")
    said = (
        "spec.qualityGate.onFailure is Warn" if chosen.verdict == "Warned" else "it was let out before the gate changed"
    )
    return no(GATE_PASSED, Reason.GATE_FAILED, f"{chosen.method}: {chosen.message}; {said}")


def _publish(job: QuantizeJob, here: Situation, chosen: MethodAttempt, attempts: list[MethodAttempt]) -> Plan:
    """A run is complete when its Expert, if one is asked for, is there and ours."""
    publish, expert, passed = job.spec.publish, here.observed.expert, _gate_condition(chosen)
    if publish is None:
        said = no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set")
        return _complete(job, here.speaker.settled(passed, said, chosen=chosen, attempts=attempts, complete=True))
    name = publish.expert.name
    if expert is not None and not is_published_by(expert, job, how=QUANTIZED):
        message = f"spec.publish.expert.name: Expert {name!r} is another one's; choose another name, or delete it"
        said = no(PUBLISHED, Reason.NAME_TAKEN, message)
        status = here.speaker.settled(passed, said, chosen=chosen, attempts=attempts, complete=False)
        return Plan(status=status, again_after=NAME_SECONDS)
    desired = published_expert(job, publish.expert, how=QUANTIZED)
    if expert is None:
        if chosen.verdict == "Failed":
            said = no(PUBLISHED, passed.reason, f"Expert {name!r} is not made: {passed.message}")
            return _complete(job, here.speaker.settled(passed, said, chosen=chosen, attempts=attempts, complete=True))
        said = no(PUBLISHED, Reason.PENDING, f"Expert {name!r} is being made")
        status = here.speaker.settled(passed, said, chosen=chosen, attempts=attempts, complete=False)
        return Plan(publish=[desired], status=status, again_after=1)
    said = yes(PUBLISHED, Reason.PUBLISHED, f"Expert {name!r}")
    plan = _complete(job, here.speaker.settled(passed, said, chosen=chosen, attempts=attempts, complete=True))
    lacking = missing_of(desired, expert)
    return plan if lacking is None else Plan(publish=[lacking], events=plan.events, status=plan.status)


def _complete(job: QuantizeJob, status: QuantizeJobStatus) -> Plan:
    was = job.status.phase == status.phase and job.status.artifact_run == status.artifact_run
    number = status.run.number if status.run else 0
    said = [] if was else [Event(Reason.SUCCEEDED, f"run {number}: {status.message}")]
    return Plan(events=said, status=status)
