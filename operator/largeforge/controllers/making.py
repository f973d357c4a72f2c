"""The next attempt of a run, once its time has come and what it needs is there. Pure.

A number (of a run, of an attempt) is written into status in one pass and used in the next: wherever the operator is
killed in between, no number stands for two different things.
"""

from __future__ import annotations

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import RunRecord
from largeforge.api.names import ATTEMPT_LABEL, RUN_LABEL, STAGE_LABEL, Reason
from largeforge.controllers import runsources
from largeforge.controllers.attempts import ending, has_ended, pause_before
from largeforge.controllers.observation import Observed
from largeforge.controllers.plan import Deletion, Event, Plan
from largeforge.controllers.podstate import Problem, is_over, lost_node
from largeforge.controllers.runchildren import is_alive
from largeforge.controllers.situation import Situation, at_attempt
from largeforge.kube.cluster import JOBS, Manifest
from largeforge.resources.preflight import left_out_claims, preflight_config_map, preflight_job
from largeforge.resources.training import run_config_map, training_job

STORAGE_SECONDS = 15.0
"""Claims, ConfigMaps and sources are not watched: how often a missing one is looked for."""


def make_attempt(job: FineTuneJob, run: RunRecord, here: Situation) -> Plan:
    """The Job of the attempt that status names, or what it waits for."""
    if here.hold is not None:
        return Plan(status=here.speaker.held())
    if run.base is None:
        return _find_base(job, run, here)
    if run.active_since is None:
        resumed = run.model_copy(update={"active_since": here.now})
        said = f"run {run.number} goes on with attempt {run.attempt}"
        status = here.speaker.waits(resumed, f"attempt {run.attempt} is about to be made", progress=None)
        return Plan(events=[Event(Reason.STARTED, said)], status=status, again_after=0)
    waiting = _pause(job, run, here) or _wait_for_pods(run, here) or _wait_for_storage(here)
    if waiting is not None:
        return waiting
    config, batch = _objects(job, run, here)
    return Plan(
        delete=leftovers(here.observed, run),
        prepare=[config],
        create=[batch],
        status=here.speaker.waits(run, pod_awaited(run)),
    )


def _pause(job: FineTuneJob, run: RunRecord, here: Situation) -> Plan | None:
    """The time between two attempts."""
    observed = here.observed
    before = observed.jobs.get(at_attempt(job, run, run.attempt - 1).job_name)
    last = before and ending(before, observed.pods, run=run, output_uri=job.spec.output.uri)
    if not last:
        return None
    at = last.time + pause_before(run.attempt)
    if here.now >= at:
        return None
    status = here.speaker.retries(run, last.cause, at=at)
    return Plan(status=status, again_after=(at - here.now).total_seconds())


def _wait_for_pods(run: RunRecord, here: Situation) -> Plan | None:
    """Two pods must not write to one folder: the one before has to be over."""
    pod = next((pod for pod in here.observed.pods if not is_over(pod)), None)
    if pod is None:
        return None
    lost = lost_node(pod)
    message = f"attempt {run.attempt} waits for pod {pod['metadata']['name']!r} of an earlier one to end"
    status = here.speaker.held_up(lost) if lost is not None else here.speaker.waits(run, message)
    return Plan(status=status, again_after=STORAGE_SECONDS)


def _wait_for_storage(here: Situation) -> Plan | None:
    if here.observed.blocked is None:
        return None
    return Plan(status=here.speaker.lacks_storage(here.observed.blocked), again_after=STORAGE_SECONDS)


def _objects(job: FineTuneJob, run: RunRecord, here: Situation) -> tuple[Manifest, Manifest]:
    """ConfigMap and Job of the attempt."""
    if run.stage == "Preflight":
        left_out = left_out_claims(job, run, unbound=here.observed.unbound)
        batch = preflight_job(job, run, installation=here.installation, left_out=left_out)
        return preflight_config_map(job, run, left_out=left_out), batch
    batch = training_job(job, run, installation=here.installation, progress=here.progress)
    return run_config_map(job, run, progress=here.progress), batch


def _find_base(job: FineTuneJob, run: RunRecord, here: Situation) -> Plan:
    """What the run goes on from, once it is there."""
    found = runsources.resolve(
        job.spec.base, here.observed.sources, runsources.Place(job.metadata.namespace, "spec.base")
    )
    if isinstance(found, Problem):
        return Plan(status=here.speaker.waits_for_source(found), again_after=STORAGE_SECONDS)
    known = run.model_copy(update={"base": found, "active_since": here.now})
    return Plan(status=here.speaker.waits(known, "the first attempt is about to be made"), again_after=0)


def leftovers(observed: Observed, run: RunRecord) -> list[Deletion]:
    """Jobs of ours beside the attempt's that go on, or that nobody needs.

    What is kept, for its logs: the attempt before, and the preflight that passed.
    """
    others = [batch for name, batch in observed.jobs.items() if name != run.job_name and is_alive(batch)]
    return [Deletion.of(JOBS, batch) for batch in others if not has_ended(batch) or not _is_kept(batch, run)]


def _is_kept(batch: Manifest, run: RunRecord) -> bool:
    labels = batch["metadata"]["labels"]
    if int(labels[RUN_LABEL]) != run.number:
        return False
    if labels.get(STAGE_LABEL, "Training") == run.stage:
        return int(labels[ATTEMPT_LABEL]) >= run.attempt - 1
    conditions = batch.get("status", {}).get("conditions", [])
    return any(c["type"] == "Complete" and c.get("status") == "True" for c in conditions)


def pod_awaited(run: RunRecord) -> str:
    """What is said before there is a pod."""
    stage = " of preflight" if run.stage == "Preflight" else ""
    return f"attempt {run.attempt}{stage} waits for its pod to start"
