"""FineTuneJob: runs, their attempts, and the Expert that is made of a complete one.

`runs` decides on a run that goes on, `settling` on one that ended; which of them, and whether the next run begins, is
decided here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.digest import changed_fields, field_digests, run_digest
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import FineTuneJobStatus
from largeforge.api.meta import is_true
from largeforge.api.names import FAILED
from largeforge.controllers.context import Context
from largeforge.controllers.faults import faults
from largeforge.controllers.finetunejobstatus import HOLDS, Speaker
from largeforge.controllers.holds import not_allowed, rerun_refused
from largeforge.controllers.observation import Observed, observe
from largeforge.controllers.plan import Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.publication import NAME_SECONDS
from largeforge.controllers.runs import begin, go_on
from largeforge.controllers.settings import Settings
from largeforge.controllers.settling import settle
from largeforge.controllers.situation import Situation
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import FINETUNEJOBS, Invalid
from largeforge.resources.attemptpod import Installation
from largeforge.resources.progress import ProgressTarget


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
    plan = decide(job, observed, settings=context.settings, progress=context.progress, now=now)
    try:
        await execute(plan, context.cluster, raw, now=now)
    except Invalid as exc:
        if plan.empty:
            raise  # the status itself: a mistake of ours
        said = Plan(status=Speaker(job, now=now).refused(str(exc), publishing=bool(plan.publish)))
        await execute(_with_warnings(job, said), context.cluster, raw, now=now)
        return NAME_SECONDS
    return plan.again_after


def decide(
    job: FineTuneJob,
    observed: Observed,
    *,
    settings: Settings,
    now: datetime,
    progress: ProgressTarget | None = None,
) -> Plan:
    """What to write so that the cluster does what *job* says."""
    digest, run = run_digest(job.spec), job.status.run
    hold = held(job, settings, digest)
    here = Situation(
        observed=observed,
        speaker=Speaker(job, now=now, hold=hold),
        installation=installation(settings),
        progress=progress,
        now=now,
        hold=hold,
    )
    if run is None:
        plan = begin(job, here, digest=digest) if hold is None else Plan(status=here.speaker.held())
    elif run.digest != digest and hold is None:
        plan = begin(job, here, digest=digest)
    elif run.outcome is None:
        plan = go_on(job, run, here)
    else:
        plan = settle(job, run, observed, here.speaker, now=now)
    return _with_warnings(job, plan)


def held(job: FineTuneJob, settings: Settings, digest: str) -> Problem | None:
    """Why the spec as it is starts nothing: the installation does not allow it, or the user wants no other run."""
    spec, run = job.spec, job.status.run
    refused = not_allowed(
        job.metadata.namespace,
        settings,
        remote_code="spec.base.trustRemoteCode" if spec.base.trust_remote_code else None,
        account=spec.service_account_name,
    )
    if refused is not None or run is None or run.digest == digest or spec.rerun_policy != "Never":
        return refused
    return rerun_refused(run.number, changed_fields(run.fields, field_digests(spec)) if run.fields else [])


def installation(settings: Settings) -> Installation:
    """What the chart decides of a run's pods."""
    return Installation(
        image=settings.trainer_image,
        pull_policy=settings.image_pull_policy,
        hub_endpoint=settings.hub_endpoint,
        hub_hosts=sorted(settings.hub_hosts),
        proxy=settings.proxy,
    )


def _with_warnings(job: FineTuneJob, plan: Plan) -> Plan:
    """*plan* with an Event for each condition that has turned to a fault; a failed run has one of its own."""
    status = plan.status
    if not isinstance(status, FineTuneJobStatus) or is_true(status.conditions, FAILED):
        return plan
    return replace(plan, events=[*plan.events, *faults(job.status.conditions, status.conditions, holds=HOLDS)])
