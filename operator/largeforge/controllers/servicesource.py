"""What `spec.model` comes to, and what speaks against serving it before a pod is made."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.engineargs import problems, value_problem
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.names import Reason
from largeforge.controllers.podstate import Problem
from largeforge.controllers.settings import Settings
from largeforge.kube.cluster import Manifest
from largeforge.resources.engineflags import Source


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


def refusal(service: InferenceService, settings: Settings) -> Problem | None:
    """What in the spec the engine or the chart does not allow: a person has to change it."""
    wrong = [*problems(service.spec.engine.extra_args), *_wrong_values(service)]
    if wrong:
        return Problem(Reason.BAD_ARGUMENT, "; ".join(wrong))
    namespace = service.metadata.namespace
    if service.spec.model.trust_remote_code and namespace not in settings.remote_code_namespaces:
        return Problem(
            Reason.REMOTE_CODE_NOT_ALLOWED,
            f"spec.model.trustRemoteCode: not allowed in namespace {namespace!r}; set it to false, or list the"
            " namespace in the chart's training.remoteCodeNamespaces",
        )
    return None


def _wrong_values(service: InferenceService) -> list[str]:
    """Values of fields that vLLM owns."""
    engine = service.spec.engine
    owned = {
        "dtype": ("dtype", engine.dtype),
        "kvCacheDtype": ("kv-cache-dtype", engine.kv_cache_dtype),
    }
    found = {field: value_problem(flag, value) for field, (flag, value) in owned.items() if value is not None}
    return [f"spec.engine.{field}: {problem}" for field, problem in found.items() if problem is not None]
