"""What an Expert's spec means at the moment, and whether its service can serve that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from largeforge.api.expert import Expert, Lineage, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.finetunejobstatus import ArtifactRecord
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import Condition, condition
from largeforge.api.names import ARTIFACT_RESOLVED, COMPATIBLE, Reason
from largeforge.api.uri import parse_pvc
from largeforge.controllers.podstate import Problem
from largeforge.resources.names import adapter_name
from largeforge.resources.serving import adapter_path

_NEVER = datetime.max.replace(tzinfo=UTC)


def resolve(expert: Expert, job: FineTuneJob | None) -> tuple[Resolved | None, Lineage | None, Condition]:
    """The artifact, where it comes from, and `ArtifactResolved`.

    What was resolved once stays, though the job be deleted: that must not take a serving expert down.
    """
    source = expert.spec.source_ref
    if source is None:
        return _model(expert), None, _said("True", Reason.RESOLVED, "the service's own model")
    before, lineage = expert.status.resolved, expert.status.lineage
    if job is not None and job.status.artifact is not None:
        resolved = _adapter(expert, job.status.artifact)
        lineage = _lineage(job) if resolved != before or lineage is None else lineage
        run = "" if lineage.run is None else f"run {lineage.run} of "
        return resolved, lineage, _said("True", Reason.RESOLVED, f"{run}FineTuneJob {source.name!r}")
    if before is not None and lineage is not None and lineage.fine_tune_job == source.name:
        why = "which is gone" if job is None else "which has no complete run any more"
        return (
            before,
            lineage,
            _said("True", Reason.RESOLVED, f"run {lineage.run} of FineTuneJob {source.name!r}, {why}"),
        )
    if job is None:
        said = f"spec.sourceRef: no FineTuneJob {source.name!r} in namespace {expert.metadata.namespace!r}"
        return before, lineage, _said("False", Reason.SOURCE_NOT_FOUND, said)
    said = f"FineTuneJob {source.name!r} has no complete run yet ({job.status.phase or 'Pending'})"
    return before, lineage, _said("False", Reason.SOURCE_NOT_COMPLETE, said)


def _said(status: str, reason: str, message: str) -> Condition:
    return Condition.model_validate({"type": ARTIFACT_RESOLVED, "status": status, "reason": reason, "message": message})


def _model(expert: Expert) -> Resolved | None:
    artifact = expert.spec.artifact
    if artifact is None:
        return None
    return Resolved(uri=artifact.uri, base=artifact.uri, engine_name=expert.spec.inference_service_ref.name)


def _adapter(expert: Expert, artifact: ArtifactRecord) -> Resolved:
    return Resolved(
        uri=artifact.uri,
        digest=artifact.digest,
        rank=artifact.rank,
        base=artifact.base,
        engine_name=adapter_name(expert.metadata.name, artifact.digest),
    )


def _lineage(job: FineTuneJob) -> Lineage:
    status = job.status
    return Lineage(
        fine_tune_job=job.metadata.name,
        run=status.artifact_run,
        dataset_digest=status.dataset.digest if status.dataset else None,
        versions=status.resolved.versions if status.resolved else [],
    )


def mismatch(expert: Expert, resolved: Resolved, service: InferenceService) -> Problem | None:
    """Why *service* cannot serve *resolved*, or None. Nothing is asked of an engine for it."""
    spec, name = service.spec, service.metadata.name
    if resolved.base != spec.model.uri:
        return Problem(
            Reason.BASE_MISMATCH,
            f"made for {resolved.base}, but InferenceService {name!r} serves {spec.model.uri};"
            " name a service of that base in spec.inferenceServiceRef",
        )
    return None if expert.spec.type == "Model" else _adapter_mismatch(resolved, service)


def _adapter_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    spec, name = service.spec, service.metadata.name
    if spec.lora is None:
        said = f"InferenceService {name!r} takes no adapters; set its spec.lora.store"
        return Problem(Reason.NO_ADAPTER_STORE, said)
    if resolved.rank is None:
        said = f"{resolved.uri} holds whole weights, not an adapter; fine-tune with peft.type: LoRA"
        return Problem(Reason.UNSUPPORTED_ADAPTER, said)
    if resolved.rank > spec.lora.max_lora_rank:
        return Problem(
            Reason.RANK_ABOVE_SERVICE,
            f"the adapter's rank is {resolved.rank}, InferenceService {name!r} takes at most"
            f" {spec.lora.max_lora_rank}; raise its spec.lora.maxLoraRank",
        )
    if path_in_store(resolved, service) is None:
        said = f"{resolved.uri} does not lie in {spec.lora.store}, spec.lora.store of InferenceService {name!r}"
        return Problem(Reason.OUTSIDE_ADAPTER_STORE, said)
    return None


def path_in_store(resolved: Resolved, service: InferenceService) -> str | None:
    """Where the engine finds the adapter, or None where it does not lie in the service's store."""
    if service.spec.lora is None:
        return None
    try:
        return adapter_path(parse_pvc(service.spec.lora.store), parse_pvc(resolved.uri))
    except ValueError:
        return None


def without_slot(expert: Expert, siblings: Sequence[Expert], service: InferenceService) -> Problem | None:
    """Why there is no slot: those that serve keep theirs, then older ones get one; one stays free for swaps."""
    if expert.spec.type == "Model" or service.spec.lora is None:
        return None
    room = service.spec.lora.slots - 1
    rivals = [s for s in siblings if s.status.resolved is not None and _wants_slot(s, s.status.resolved, service)]
    before = sorted(s.metadata.name for s in rivals if _turn(s) < _turn(expert))
    if len(before) < room:
        return None
    return Problem(
        Reason.SLOTS_EXHAUSTED,
        f"InferenceService {service.metadata.name!r} has {room} slots for adapters (and one for swaps), held by"
        f" {', '.join(before[:16])}; raise its spec.lora.maxCpuLoras",
    )


def _wants_slot(expert: Expert, resolved: Resolved, service: InferenceService) -> bool:
    fits = condition(expert.status.conditions, COMPATIBLE)
    if fits is not None and fits.reason == Reason.NAME_TAKEN:
        return False
    return expert.spec.type == "Adapter" and mismatch(expert, resolved, service) is None


def _turn(expert: Expert) -> tuple[bool, datetime, str]:
    placement = expert.status.placement
    waits = placement is None or not placement.loaded
    return waits, expert.metadata.creation_timestamp or _NEVER, expert.metadata.name
