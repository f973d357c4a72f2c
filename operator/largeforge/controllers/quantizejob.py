"""QuantizeJob: runs, their methods and attempts, and the Expert that is made of the first result that passes.

`quantizeruns` decides on a run that goes on, `quantizesettling` on one that ended; which of them, and whether the next
run begins, is decided here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.digest import changed_fields
from largeforge.api.meta import is_true
from largeforge.api.names import FAILED, Reason
from largeforge.api.quantizedigest import field_digests, run_digest
from largeforge.api.quantizejob import QuantizeJob
from largeforge.api.quantizejobstatus import QuantizeJobStatus
from largeforge.api.servable import refusal
from largeforge.controllers.context import Context
from largeforge.controllers.faults import faults
from largeforge.controllers.finetunejob import installation
from largeforge.controllers.holds import not_allowed, rerun_refused
from largeforge.controllers.plan import Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.publication import NAME_SECONDS
from largeforge.controllers.quantizeobservation import Observed, observe
from largeforge.controllers.quantizeruns import begin, go_on
from largeforge.controllers.quantizesettling import settle
from largeforge.controllers.quantizesituation import Situation
from largeforge.controllers.quantizestatus import HOLDS, QuantizeSpeaker
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import QUANTIZEJOBS, Invalid
from largeforge.resources.progress import ProgressTarget
from largeforge.resources.quantizepod import Images


async def reconcile(key: Key, context: Context) -> float | None:
    """Bring one QuantizeJob a step further."""
    raw = await context.cluster.get(QUANTIZEJOBS, key.namespace, key.name)
    if raw is None or "deletionTimestamp" in raw["metadata"]:
        return None  # what it made goes with it, by owner references
    now = context.now()
    job = read(QuantizeJob, raw)
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
        said = Plan(status=QuantizeSpeaker(job, now=now).refused(str(exc), publishing=bool(plan.publish)))
        await execute(_with_warnings(job, said), context.cluster, raw, now=now)
        return NAME_SECONDS
    return plan.again_after


def decide(
    job: QuantizeJob,
    observed: Observed,
    *,
    settings: Settings,
    now: datetime,
    progress: ProgressTarget | None = None,
) -> Plan:
    """What to write so that the cluster does what *job* says."""
    digest, run = run_digest(job.spec), job.status.run
    hold = held(job, observed, settings, digest)
    here = Situation(
        observed=observed,
        speaker=QuantizeSpeaker(job, now=now, hold=hold),
        images=images(settings),
        errands=installation(settings),
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
        plan = settle(job, run, here)
    return _with_warnings(job, plan)


def held(job: QuantizeJob, observed: Observed, settings: Settings, digest: str) -> Problem | None:
    """Why the spec as it is starts nothing: the installation does not allow it, no engine could serve what it makes, or
    the user wants no other run.
    """
    spec, run = job.spec, job.status.run
    refused = not_allowed(
        job.metadata.namespace,
        settings,
        remote_code="spec.source.trustRemoteCode" if spec.source.trust_remote_code else None,
        account=spec.service_account_name,
    )
    refused = refused or _unservable(job, observed)
    if refused is not None or run is None or run.digest == digest or spec.rerun_policy != "Never":
        return refused
    return rerun_refused(run.number, changed_fields(run.fields, field_digests(spec)) if run.fields else [])


def _unservable(job: QuantizeJob, observed: Observed) -> Problem | None:
    """The first method whose result could not be evaluated here, or not be served where it is to be published."""
    spec, service = job.spec, observed.service
    places = [(spec.compute.gpus_per_node == 0, False, "the engine that evaluates (spec.compute.gpusPerNode)")]
    if service is not None:
        where = f"InferenceService {service.metadata.name!r} (spec.publish.expert.inferenceServiceRef)"
        places.append((service.spec.compute.gpus_per_replica == 0, service.spec.lora is not None, where))
    for i, method in enumerate(spec.methods):
        for on_cpu, with_lora, where in places:
            why = refusal(method, spec.engine, on_cpu=on_cpu, with_lora=with_lora)
            if why is not None:
                said = f"spec.methods[{i}]: {method} cannot be served by {where}: {why}"
                return Problem(Reason.NOT_SERVABLE, said)
    return None


def images(settings: Settings) -> Images:
    """What the chart decides of the pods."""
    return Images(
        installation=replace(installation(settings), image=settings.quantizer_image),
        autoawq=settings.quantizer_autoawq_image,
        engine=settings.engine_image,
        engine_cpu=settings.engine_cpu_image,
    )


def _with_warnings(job: QuantizeJob, plan: Plan) -> Plan:
    """*plan* with an Event for each condition that has turned to a fault; a failed run has one of its own."""
    status = plan.status
    if not isinstance(status, QuantizeJobStatus) or is_true(status.conditions, FAILED):
        return plan
    return replace(plan, events=[*plan.events, *faults(job.status.conditions, status.conditions, holds=HOLDS)])
