"""What `spec.model` comes to."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import Reason
from largeforge.controllers.podstate import Problem
from largeforge.kube.cluster import Manifest
from largeforge.resources.engineflags import Source
from largeforge.resources.inspect import Subject


def source_of(service: InferenceService, experts: Sequence[Manifest]) -> Source | Problem:
    """The model, or what it waits for. What an Expert once resolved to stays, though the Expert be deleted."""
    model = service.spec.model
    if model.expert_ref is None:
        if model.uri is None:  # CEL refuses it; an object that is older than the rule may have it
            return Problem(Reason.INVALID_CONFIG, "spec.model: set either uri or expertRef")
        return Source(model.uri, model.revision)
    name = model.expert_ref.name
    expert = next((each for each in experts if each["metadata"]["name"] == name), None)
    resolved = (expert or {}).get("status", {}).get("resolved", {}).get("uri")
    uri = resolved or (service.status.model.uri if service.status.model is not None else None)
    if uri is not None:
        return Source(uri)
    if expert is None:
        namespace = service.metadata.namespace
        return Problem(Reason.SOURCE_NOT_FOUND, f"spec.model.expertRef: no Expert {name!r} in namespace {namespace!r}")
    if expert.get("spec", {}).get("type") != "Model":
        said = f"spec.model.expertRef: Expert {name!r} is not of type Model; name one that is"
        return Problem(Reason.INVALID_CONFIG, said)
    return Problem(Reason.SOURCE_NOT_COMPLETE, f"spec.model.expertRef: Expert {name!r} has no artifact yet")


def subject_of(service: InferenceService, source: Source) -> Subject:
    """What the inspect Job is asked: the model's files, before an engine is made for them."""
    model = service.spec.model
    return Subject(
        expect="Model",
        uri=source.uri,
        field="spec.model.uri" if model.expert_ref is None else "spec.model.expertRef",
        revision=model.revision,
        secret_ref=model.secret_ref,
        cache_uri=service.spec.cache.uri if service.spec.cache is not None else None,
        trust_remote_code=model.trust_remote_code,
    )
