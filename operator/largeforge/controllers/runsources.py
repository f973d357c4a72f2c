"""What `spec.base` comes to: found once, when a run begins, and kept for the run's life."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import Base, FineTuneJob, FineTuneJobRef
from largeforge.api.finetunejobstatus import ArtifactRecord, ResolvedBase, RunRecord
from largeforge.api.names import Reason
from largeforge.controllers.plan import read
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, Cluster


@dataclass(frozen=True, slots=True)
class Sources:
    """The objects that `spec.base` names."""

    job: FineTuneJob | None = None
    """The FineTuneJob, or the one whose artifact the Expert serves."""
    expert: Expert | None = None


def plain(base: Base) -> ResolvedBase | None:
    """What *base* comes to where it names the model itself."""
    uri = base.uri
    return None if uri is None else ResolvedBase(uri=uri)


async def look(cluster: Cluster, base: Base, namespace: str) -> Sources:
    """Read what *base* names."""
    if base.fine_tune_job_ref is not None:
        return Sources(job=await _job(cluster, namespace, base.fine_tune_job_ref.name))
    if base.expert_ref is None:
        return Sources()
    raw = await cluster.get(EXPERTS, namespace, base.expert_ref.name)
    expert = None if raw is None else read(Expert, raw)
    if expert is None or isinstance(expert, ValidationError):
        return Sources()
    lineage = expert.status.lineage
    maker = lineage.fine_tune_job if lineage is not None else None
    return Sources(job=await _job(cluster, namespace, maker) if maker else None, expert=expert)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a `Base` stands, for messages."""

    namespace: str
    field: str
    """`spec.base` or `spec.source`."""


def resolve(base: Base, sources: Sources, place: Place) -> ResolvedBase | Problem:
    """What the run begins with, or what it waits for."""
    if (found := plain(base)) is not None:
        return found
    if base.fine_tune_job_ref is not None:
        return _of_job(base.fine_tune_job_ref, sources.job, place)
    if base.expert_ref is None:
        raise AssertionError("the API server has made sure that one of three is there")
    return _of_expert(base.expert_ref.name, sources, place)


def _of_job(reference: FineTuneJobRef, source: FineTuneJob | None, place: Place) -> ResolvedBase | Problem:
    name, field = reference.name, f"{place.field}.fineTuneJobRef"
    if source is None:
        said = f"{field}: no FineTuneJob {name!r} in namespace {place.namespace!r}; create it"
        return Problem(Reason.SOURCE_NOT_FOUND, said)
    status = source.status
    if reference.run is None:
        if status.artifact is None:
            said = f"{field}: FineTuneJob {name!r} has no complete run yet ({status.phase or 'Pending'})"
            return Problem(Reason.SOURCE_NOT_COMPLETE, f"{said}; the run begins when it has")
        return _from(status.artifact, source, _record(source, status.artifact_run))
    record = _record(source, reference.run)
    newest = status.run.number if status.run is not None else 0
    if record is None and reference.run <= newest:
        said = f"{field}.run: nothing is known any more of run {reference.run} of FineTuneJob {name!r}"
        return Problem(Reason.SOURCE_NOT_FOUND, f"{said}; name one of its status.run and status.history")
    if record is None or record.artifact is None:
        state = "has failed" if record is not None and record.outcome == "Failed" else "is not complete yet"
        said = f"{field}.run: run {reference.run} of FineTuneJob {name!r} {state}; name another, or leave run out"
        return Problem(Reason.SOURCE_NOT_COMPLETE, said)
    return _from(record.artifact, source, record)


def _of_expert(name: str, sources: Sources, place: Place) -> ResolvedBase | Problem:
    expert, field = sources.expert, f"{place.field}.expertRef"
    if expert is None:
        said = f"{field}: no Expert {name!r} in namespace {place.namespace!r}; create it"
        return Problem(Reason.SOURCE_NOT_FOUND, said)
    if expert.spec.type == "Model" and expert.spec.artifact is not None:
        return ResolvedBase(uri=expert.spec.artifact.uri)
    placement = expert.status.placement
    served = (placement.resolved if placement is not None else None) or expert.status.resolved
    if served is None:
        said = f"{field}: Expert {name!r} has no artifact yet; the run begins when it has"
        return Problem(Reason.SOURCE_NOT_COMPLETE, said)
    if expert.spec.type == "Model":
        return ResolvedBase(uri=served.uri)
    maker = sources.job
    for record in _records(maker):
        if maker is not None and record.artifact is not None and record.artifact.uri == served.uri:
            return _from(record.artifact, maker, record)
    return ResolvedBase(uri=served.base, adapter=served.uri)


def _from(artifact: ArtifactRecord, source: FineTuneJob, record: RunRecord | None) -> ResolvedBase:
    """An adapter goes on upon its own base, at the same commit and reached by the same Secret."""
    if artifact.kind == "Model":
        return ResolvedBase(uri=artifact.uri)
    inherited = record.base.secret_ref if record is not None and record.base is not None else None
    return ResolvedBase(
        uri=artifact.base,
        adapter=artifact.uri,
        commit=artifact.base_commit,
        secret_ref=source.spec.base.secret_ref or inherited,
    )


def _record(source: FineTuneJob, number: int | None) -> RunRecord | None:
    return next((record for record in _records(source) if record.number == number), None)


def _records(source: FineTuneJob | None) -> list[RunRecord]:
    if source is None:
        return []
    newest = [source.status.run] if source.status.run is not None else []
    return [*newest, *source.status.history]


async def _job(cluster: Cluster, namespace: str, name: str) -> FineTuneJob | None:
    raw = await cluster.get(FINETUNEJOBS, namespace, name)
    found = None if raw is None else read(FineTuneJob, raw)
    return None if isinstance(found, ValidationError) else found
