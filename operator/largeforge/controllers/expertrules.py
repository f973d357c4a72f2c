"""Whether an InferenceService can serve what an Expert's spec means. Nothing is asked of an engine for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Resolved
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition
from largeforge.api.names import COMPATIBLE, Reason
from largeforge.api.uri import PVC_PATTERN, parse_pvc
from largeforge.controllers.engine import Tokens
from largeforge.controllers.podstate import Problem
from largeforge.resources.enginepod import STORE_PATH
from largeforge.resources.serving import adapter_path

_NEVER = datetime.max.replace(tzinfo=UTC)


def mismatch(
    expert: Expert, resolved: Resolved, service: InferenceService, siblings: Sequence[Expert]
) -> Problem | None:
    """Why *service* cannot serve *resolved*, or None; *siblings* are the other Experts on it."""
    if expert.spec.type == "Model":
        return _model_mismatch(expert, resolved, service)
    return _base_mismatch(resolved, service, siblings) or _adapter_mismatch(resolved, service)


def _model_mismatch(expert: Expert, resolved: Resolved, service: InferenceService) -> Problem | None:
    if resolved.unsupported is not None:
        return Problem(Reason.UNSUPPORTED_ADAPTER, f"{resolved.uri} {resolved.unsupported}")
    name, model = service.metadata.name, service.spec.model
    if resolved.uri == model.uri or (model.expert_ref is not None and model.expert_ref.name == expert.metadata.name):
        return None
    served = model.uri or (f"Expert {model.expert_ref.name!r}" if model.expert_ref is not None else "nothing")
    return Problem(
        Reason.BASE_MISMATCH,
        f"the model is {resolved.uri}, but InferenceService {name!r} serves {served}; let its spec.model name the"
        " one, or name another service in spec.inferenceServiceRef",
    )


def _base_mismatch(resolved: Resolved, service: InferenceService, siblings: Sequence[Expert]) -> Problem | None:
    name, status = service.metadata.name, service.status.model
    served = service.spec.model.uri or (status.uri if status is not None else None)
    if served is None:
        return Problem(Reason.SERVICE_NOT_READY, f"InferenceService {name!r} has no model yet")
    if resolved.base == served:
        return _commit_mismatch(resolved, service)
    if resolved.base == _made_from(service, siblings):
        return None
    if resolved.base_is_written and not _are_comparable(resolved.base, served):
        return None
    return Problem(
        Reason.BASE_MISMATCH,
        f"made for {resolved.base}, but InferenceService {name!r} serves {served};"
        " name a service of that base in spec.inferenceServiceRef",
    )


def _made_from(service: InferenceService, siblings: Sequence[Expert]) -> str | None:
    """What the service's model was quantized from, where it takes it from an Expert: that is still the same base."""
    reference = service.spec.model.expert_ref
    named = next((s for s in siblings if reference is not None and s.metadata.name == reference.name), None)
    if named is None or named.spec.source_ref is None or named.spec.source_ref.kind != "QuantizeJob":
        return None
    return named.status.resolved.base if named.status.resolved is not None else None


def _commit_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    """A base of the hub changes under its name: it must be the very commit."""
    served = service.status.model.commit if service.status.model is not None else None
    if resolved.base_commit is None or served is None or resolved.base_commit == served:
        return None
    return Problem(
        Reason.BASE_MISMATCH,
        f"made for commit {resolved.base_commit} of {resolved.base}, but InferenceService"
        f" {service.metadata.name!r} serves {served}; set its spec.model.revision to the former, or train again",
    )


def _are_comparable(written: str, served: str) -> bool:
    """Whether the name that an adapter's own file has says anything of the model that is served."""
    return written.startswith("hf://") and served.startswith("hf://")


def _adapter_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    spec, name = service.spec, service.metadata.name
    if spec.lora is None:
        said = f"InferenceService {name!r} takes no adapters; set its spec.lora.store"
        return Problem(Reason.NO_ADAPTER_STORE, said)
    if not re.fullmatch(PVC_PATTERN, resolved.uri):
        return Problem(Reason.ARTIFACT_NOT_FOUND, f"{resolved.uri} is no folder of a claim; write it to one")
    if resolved.unsupported is not None:
        return Problem(Reason.UNSUPPORTED_ADAPTER, f"{resolved.uri} {resolved.unsupported}")
    if resolved.does_nothing:
        said = f"{resolved.uri} changes nothing: its B matrices, or its alpha, are zero; train it, or serve the base"
        return Problem(Reason.ADAPTER_HAS_NO_EFFECT, said)
    if resolved.rank is not None and resolved.rank > spec.lora.max_lora_rank:
        return Problem(
            Reason.RANK_ABOVE_SERVICE,
            f"the adapter's rank is {resolved.rank}, InferenceService {name!r} takes at most"
            f" {spec.lora.max_lora_rank}; raise its spec.lora.maxLoraRank",
        )
    return None


def template_problem(resolved: Resolved, tokens: Tokens, *, service: str) -> Problem | None:
    """Why the engine would not ask as the training did, or None: the same conversation must be the same tokens."""
    differing = [each.name for each in resolved.probes if tokens.digests.get(each.name) != each.prompt_digest]
    if not differing:
        return None
    said = (
        f"InferenceService {service!r} makes other tokens of a conversation ({', '.join(differing)}) than the training"
        " did: serve the base's own chat template and tokenizer, or train with the ones that are served"
    )
    return Problem(Reason.TEMPLATE_DIFFERS, said)


def path_in_pod(resolved: Resolved, service: InferenceService) -> str:
    """Where the engine finds the adapter: in its own place where that lies in the store, else the copy."""
    inside = path_in_store(resolved.uri, service)
    return inside if inside is not None else f"{STORE_PATH}/{resolved.digest}"


def path_in_store(uri: str, service: InferenceService) -> str | None:
    """Where the engine finds *uri* itself, or None where it does not lie in the service's store."""
    lora = service.spec.lora
    return None if lora is None else adapter_path(parse_pvc(lora.store), parse_pvc(uri))


def without_slot(expert: Expert, siblings: Sequence[Expert], service: InferenceService) -> Problem | None:
    """Why there is no slot: those that serve keep theirs, then older ones get one; one stays free for swaps."""
    if expert.spec.type == "Model" or service.spec.lora is None:
        return None
    room = service.spec.lora.slots - 1
    rivals = [s for s in siblings if _wants_slot(s, siblings, service)]
    before = sorted(s.metadata.name for s in rivals if _turn(s) < _turn(expert))
    if len(before) < room:
        return None
    return Problem(
        Reason.SLOTS_EXHAUSTED,
        f"InferenceService {service.metadata.name!r} has {room} slots for adapters (and one for swaps), held by"
        f" {', '.join(before[:16])}; raise its spec.lora.maxCpuLoras",
    )


def _wants_slot(expert: Expert, siblings: Sequence[Expert], service: InferenceService) -> bool:
    resolved = expert.status.resolved
    if resolved is None or expert.spec.type != "Adapter" or expert.spec.stage == "Archived":
        return False
    fits = condition(expert.status.conditions, COMPATIBLE)
    if fits is not None and fits.reason in (Reason.NAME_TAKEN, Reason.TEMPLATE_DIFFERS):
        return False
    return mismatch(expert, resolved, service, siblings) is None


def _turn(expert: Expert) -> tuple[bool, datetime, str]:
    placement = expert.status.placement
    waits = placement is None or not placement.loaded
    return waits, expert.metadata.creation_timestamp or _NEVER, expert.metadata.name
