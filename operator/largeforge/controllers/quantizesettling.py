"""What follows a QuantizeJob's run that ended: the gate, the Expert, and the removal of what nobody needs. Pure."""

from __future__ import annotations

from largeforge.api.meta import Condition, condition
from largeforge.api.names import FAILED, GATE_PASSED, RUN_LABEL, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import MethodAttempt, QuantizeJobStatus, QuantizeRunRecord
from largeforge.controllers.phases import no, yes
from largeforge.controllers.plan import Event, Plan
from largeforge.controllers.podstate import Problem
from largeforge.controllers.publication import publication
from largeforge.controllers.quantizeendings import begin_method
from largeforge.controllers.quantizegate import Chosen, Next, conclude, judged, words
from largeforge.controllers.quantizeremoval import remove_leftovers
from largeforge.controllers.quantizesituation import Situation
from largeforge.controllers.runchildren import all_of, at_their_time
from largeforge.resources.publishing import QUANTIZED


def settle(job: QuantizeJob, run: QuantizeRunRecord, here: Situation) -> Plan:
    """Judge and publish what the run wrote, remove the files that nobody needs, and its children in their time."""
    plan = _judge(job, run, here) if run.outcome == "Succeeded" else Plan(status=here.speaker.unchanged())
    status = plan.status
    if isinstance(status, QuantizeJobStatus) and status.run is not None and status.run.outcome is None:
        return plan  # a looser gate has opened the run again
    plan = remove_leftovers(plan, job, here)
    # Those that remove files have a time of their own.
    steps = {name: batch for name, batch in here.observed.jobs.items() if RUN_LABEL in batch["metadata"]["labels"]}
    children, ttl = all_of(steps, here.observed.configs), job.spec.ttl_seconds_after_finished
    return at_their_time(plan, children, ended=run.completion_time, ttl_seconds=ttl, now=here.now)


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
    passed = _gate_condition(chosen)
    wish = job.spec.publish.expert if job.spec.publish is not None else None
    withheld = passed if chosen.verdict == "Failed" else None
    found = publication(job, wish, here.observed.expert, how=QUANTIZED, withheld=withheld)
    status = here.speaker.settled(passed, found.said, chosen=chosen, attempts=attempts, complete=found.complete)
    events = _completed(job, status) if found.complete else []
    return Plan(publish=found.publish, events=events, status=status, again_after=found.again_after)


def _completed(job: QuantizeJob, status: QuantizeJobStatus) -> list[Event]:
    was = job.status.phase == status.phase and job.status.artifact_run == status.artifact_run
    number = status.run.number if status.run else 0
    return [] if was else [Event(Reason.SUCCEEDED, f"run {number}: {status.message}")]
