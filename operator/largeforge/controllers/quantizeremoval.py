"""The removal of what a QuantizeJob's run has left on the claim: one folder after the other, each by a Job. Pure."""

from __future__ import annotations

from dataclasses import replace

from largeforge.api.deliver import DeliverResult
from largeforge.api.meta import Condition
from largeforge.api.names import LEFTOVERS_REMOVED, Reason
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeJobStatus
from largeforge.controllers.inspection import Question, Seen, decide
from largeforge.controllers.phases import no, yes
from largeforge.controllers.plan import Event, Plan, changed
from largeforge.controllers.quantizeleftovers import Leftover, leftovers, named_by
from largeforge.controllers.quantizesituation import Situation
from largeforge.resources.deliver import Removal, removal_config, remove_job
from largeforge.resources.errand import REACHING, Parent
from largeforge.resources.pods import overlay_spec

FIELD = "spec.output.uri"


def remove_leftovers(plan: Plan, job: QuantizeJob, here: Situation) -> Plan:
    """*plan* of a run that has ended, and the next step of the removal."""
    status, run = plan.status, job.status.run
    if not isinstance(status, QuantizeJobStatus) or run is None or status.run != run:
        return plan  # what came of the run is written down first
    kept = []
    for each in leftovers(job):
        who = named_by(each, here.observed.others, job.metadata.name)
        if who is None:
            return _remove(plan, status, each, question=_question(job, here, each), here=here)
        kept.append(f"{each.folder} is kept, since {who} names it")
    if run.chosen_method is None:
        kept.append("no result was let out, so what the methods wrote is kept")
        said = no(LEFTOVERS_REMOVED, Reason.PENDING, "; ".join(kept))
    else:
        said = yes(LEFTOVERS_REMOVED, Reason.REMOVED, "; ".join(kept) or "nothing is left that nobody needs")
    return _saying(plan, status, said, here)


def _question(job: QuantizeJob, here: Situation, each: Leftover) -> Question[DeliverResult]:
    """What a Job is asked. One that ended before the run did answers nothing: the folder may be there again."""
    overlay = overlay_spec(job.spec.compute.pod_template)
    placement = {key: overlay[key] for key in REACHING if key in overlay}
    removal = Removal(each.folder, each.digest, FIELD)
    batch = remove_job(removal, Parent("QuantizeJob", job.metadata), installation=here.errands, placement=placement)
    since = job.status.run.completion_time if job.status.run is not None else None
    return Question(batch, removal_config(removal), DeliverResult, since=since)


def _remove(
    plan: Plan, status: QuantizeJobStatus, each: Leftover, *, question: Question[DeliverResult], here: Situation
) -> Plan:
    """Ask; once it is gone, write that down."""
    seen = Seen(here.observed.jobs.get(question.job["metadata"]["name"]), here.observed.pods)
    step = decide(question, seen, now=here.now)
    if isinstance(step.state, DeliverResult):
        gone = Event(Reason.REMOVED, f"{each.folder} was removed: nobody needs it any more")
        return replace(plan, events=[*plan.events, gone], status=_gone(status, each), again_after=0)
    said = no(LEFTOVERS_REMOVED, step.state.reason, f"{each.folder}: {step.state.message}")
    waits = [seconds for seconds in (plan.again_after, step.again_after) if seconds is not None]
    going = replace(
        plan,
        delete=[*plan.delete, *step.delete],
        create=[*plan.create, *step.create],
        again_after=min(waits, default=None),
    )
    return _saying(going, status, said, here)


def _gone(status: QuantizeJobStatus, each: Leftover) -> QuantizeJobStatus:
    if each.method is None:
        source = status.source and status.source.model_copy(update={"removed": True})
        return status.model_copy(update={"source": source})
    attempts = list(status.attempts)
    attempts[each.method] = attempts[each.method].model_copy(update={"removed": True})
    return status.model_copy(update={"attempts": attempts})


def _saying(plan: Plan, status: QuantizeJobStatus, said: Condition, here: Situation) -> Plan:
    return replace(plan, status=changed(status, [said], generation=status.observed_generation, now=here.now))
