"""Whether an InferenceService can serve what an Expert's spec means. Nothing is asked of an engine for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Delivery, Resolved
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition
from largeforge.api.names import COMPATIBLE, Reason
from largeforge.api.uri import parse_pvc
from largeforge.controllers.engine import Tokens
from largeforge.controllers.podstate import Problem
from largeforge.resources.enginepod import STORE_PATH
from largeforge.resources.serving import adapter_path

_NEVER = datetime.max.replace(tzinfo=UTC)


def mismatch(expert: Expert, resolved: Resolved, service: InferenceService) -> Problem | None:
    """Why *service* cannot serve *resolved*, or None."""
    if expert.spec.type == "Model":
        return _model_mismatch(resolved, service)
    return _base_mismatch(resolved, service) or _adapter_mismatch(resolved, service)


def _model_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    if resolved.unsupported is not None:
        return Problem(Reason.UNSUPPORTED_ADAPTER, f"{resolved.uri} {resolved.unsupported}")
    name, served = service.metadata.name, service.spec.model.uri
    if resolved.uri == served:
        return None
    return Problem(
        Reason.BASE_MISMATCH,
        f"the model is {resolved.uri}, but InferenceService {name!r} serves {served}; let its spec.model name the"
        " one, or name another service in spec.inferenceServiceRef",
    )


def _base_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    name, served = service.metadata.name, service.spec.model.uri
    if resolved.base == served:
        return None
    return Problem(
        Reason.BASE_MISMATCH,
        f"made for {resolved.base}, but InferenceService {name!r} serves {served};"
        " name a service of that base in spec.inferenceServiceRef",
    )


def _adapter_mismatch(resolved: Resolved, service: InferenceService) -> Problem | None:
    spec, name = service.spec, service.metadata.name
    if spec.lora is None:
        said = f"InferenceService {name!r} takes no adapters; set its spec.lora.store"
        return Problem(Reason.NO_ADAPTER_STORE, said)
    if resolved.unsupported is not None:
        return Problem(Reason.UNSUPPORTED_ADAPTER, f"{resolved.uri} {resolved.unsupported}")
    if resolved.rank is not None and resolved.rank > spec.lora.max_lora_rank:
        return Problem(
            Reason.RANK_ABOVE_SERVICE,
            f"the adapter's rank is {resolved.rank}, InferenceService {name!r} takes at most"
            f" {spec.lora.max_lora_rank}; raise its spec.lora.maxLoraRank",
        )
    if path_in_store(resolved.uri, service) is None:
        said = f"{resolved.uri} does not lie in {spec.lora.store}, spec.lora.store of InferenceService {name!r}"
        return Problem(Reason.OUTSIDE_ADAPTER_STORE, said)
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
    if service.spec.lora is None:
        return None
    try:
        return adapter_path(parse_pvc(service.spec.lora.store), parse_pvc(uri))
    except ValueError:
        return None


def delivery_of(resolved: Resolved, service: InferenceService) -> Delivery | None:
    """The copy that the service needs of *resolved*; None where its engines find it as it is."""
    if service.spec.lora is None or path_in_store(resolved.uri, service) is not None:
        return None
    return Delivery(store=service.spec.lora.store, uri=resolved.uri, digest=resolved.digest)


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
    if expert.spec.type != "Adapter" or expert.spec.stage == "Archived":
        return False
    fits = condition(expert.status.conditions, COMPATIBLE)
    if fits is not None and fits.reason in (Reason.NAME_TAKEN, Reason.TEMPLATE_DIFFERS):
        return False
    return mismatch(expert, resolved, service) is None


def _turn(expert: Expert) -> tuple[bool, datetime, str]:
    placement = expert.status.placement
    waits = placement is None or not placement.loaded
    return waits, expert.metadata.creation_timestamp or _NEVER, expert.metadata.name
