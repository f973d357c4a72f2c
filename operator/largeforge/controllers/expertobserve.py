"""Reading all that an Expert's decision is made of: objects, engines, and the Jobs that look at its files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.expert import Expert, SourceRef
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.names import INFERENCESERVICE_LABEL
from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers.context import Context
from largeforge.controllers.engine import list_models
from largeforge.controllers.enginepods import engine_pods
from largeforge.controllers.expertfiles import Files, delivery_question, inspection_question, of_artifact
from largeforge.controllers.expertfit import compatible
from largeforge.controllers.expertplacement import Observed
from largeforge.controllers.expertsource import Found, of_job, service_model
from largeforge.controllers.finetunejob import installation
from largeforge.controllers.inspection import decide as inspected
from largeforge.controllers.inspection import look
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.namesakes import oldest_holder
from largeforge.controllers.plan import M, read
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, PODS, QUANTIZEJOBS, Cluster, Resource


async def observe(context: Context, expert: Expert) -> Observed:
    """Read all that `decide` needs."""
    cluster, namespace, name = context.cluster, expert.metadata.namespace, expert.metadata.name
    source, target = expert.spec.source_ref, expert.spec.service_name
    services = [read(InferenceService, each) for each in await cluster.list(INFERENCESERVICES, namespace)]
    known = [each for each in services if isinstance(each, InferenceService)]
    service = next((each for each in known if each.metadata.name == target), None)
    observed = Observed(
        job=await _job(cluster, source, namespace) if source else None,
        namesake=oldest_holder(name, known),
        report=context.reports.of(namespace, name),
        service=service,
    )
    if service is not None:
        observed = await _with_engines(context, expert, service, observed)
    return await _with_files(context, expert, observed)


async def _with_engines(context: Context, expert: Expert, service: InferenceService, observed: Observed) -> Observed:
    """The service's pods, what their engines serve, and the Experts beside this one."""
    cluster, namespace, target = context.cluster, expert.metadata.namespace, service.metadata.name
    key = engine_key(namespace_key(context.master_key, namespace), service.metadata.uid)
    pods = engine_pods(await cluster.list(PODS, namespace, labels={INFERENCESERVICE_LABEL: target}))
    experts = [read(Expert, each) for each in await cluster.list(EXPERTS, namespace)]
    others = [e for e in experts if isinstance(e, Expert) and e.metadata.name != expert.metadata.name]
    return replace(
        observed,
        key=key,
        siblings=[e for e in others if e.spec.service_name == target],
        pods=pods,
        listings=await list_models(pods, context.engines, key=key) if service.spec.lora else {},
    )


async def _with_files(context: Context, expert: Expert, observed: Observed) -> Observed:
    """The Jobs that ask what the files are, and then bring them to where engines read them."""
    here, cluster = installation(context.settings), context.cluster
    asked = inspection_question(expert, observed.service, here)
    if asked is not None:
        observed = replace(observed, files=Files(inspection=(asked, await look(cluster, asked.job))))
    if observed.service is None or expert.spec.type != "Adapter" or expert.spec.stage == "Archived":
        return observed
    resolved = resolve(expert, observed, now=context.now()).resolved
    if resolved is None or compatible(expert, resolved, observed).status != "True":
        return observed
    wanted = delivery_question(expert, resolved, observed.service, here)
    if wanted is None:
        return observed
    return replace(observed, files=replace(observed.files, delivery=(wanted, await look(cluster, wanted.job))))


def resolve(expert: Expert, observed: Observed, *, now: datetime) -> Found:
    """What the spec comes to."""
    source, artifact = expert.spec.source_ref, expert.spec.artifact
    if source is not None:
        return of_job(expert, source, observed.job)
    assert artifact is not None  # noqa: S101 - the API server has made sure that one of three is there
    if expert.spec.type == "Model":
        return service_model(expert, artifact.uri)
    asked = observed.files.inspection
    return of_artifact(expert, artifact.uri, None if asked is None else inspected(*asked, now=now))


async def _job(cluster: Cluster, source: SourceRef, namespace: str) -> FineTuneJob | QuantizeJob | None:
    if source.kind == "QuantizeJob":
        return await _get(cluster, QUANTIZEJOBS, QuantizeJob, namespace, source.name)
    return await _get(cluster, FINETUNEJOBS, FineTuneJob, namespace, source.name)


async def _get(cluster: Cluster, resource: Resource, model: type[M], namespace: str, name: str) -> M | None:
    """The object, or None where it is not there or not readable; a newer kind of it is as good as gone."""
    raw = await cluster.get(resource, namespace, name)
    found = None if raw is None else read(model, raw)
    return None if isinstance(found, ValidationError) else found
