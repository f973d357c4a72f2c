"""Whether an engine can be made, and of what: everything that speaks against it before a pod is there."""

from __future__ import annotations

from dataclasses import dataclass

from largeforge.api.engineargs import problems, value_problem
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inspect import InspectResult, ModelFacts
from largeforge.api.names import Reason
from largeforge.api.redact import redact
from largeforge.controllers.inspection import Pending, Question, Step, is_known
from largeforge.controllers.podstate import Problem
from largeforge.controllers.servicesource import source_of, subject_of
from largeforge.controllers.settings import Settings
from largeforge.kube.cluster import Manifest
from largeforge.resources.attemptpod import Installation
from largeforge.resources.engineflags import Source
from largeforge.resources.errand import Parent
from largeforge.resources.fit import Fit, fit_of
from largeforge.resources.inspect import inspect_config, inspect_job
from largeforge.resources.pods import overlay_spec


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an engine is made of, or why none is."""

    source: Source | None = None
    facts: ModelFacts | None = None
    fit: Fit | None = None
    problem: Problem | None = None
    """What speaks against it: no pod is made, and those that are there stay as they are."""
    waits: bool = False
    """Whether time may cure it; else a person has to change something."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was observed that speaks for or against the model."""

    experts: tuple[Manifest, ...] = ()
    missing: Problem | None = None
    """The first claim or ConfigMap that is named and not there."""
    inspection: Step[InspectResult] | None = None
    """What the inspect Job says; None where nothing was asked."""


def question(
    service: InferenceService, experts: tuple[Manifest, ...], settings: Settings
) -> Question[InspectResult] | None:
    """What to ask of the model's files; None where that is known, or where there is no model yet."""
    source = source_of(service, experts)
    if isinstance(source, Problem):
        return None
    subject = subject_of(service, source)
    config = inspect_config(subject)
    if is_known(service.status.model, config):
        return None
    installation = Installation(
        settings.trainer_image,
        settings.image_pull_policy,
        settings.hub_endpoint,
        sorted(settings.hub_hosts),
        settings.proxy,
    )
    job = inspect_job(
        subject,
        Parent("InferenceService", service.metadata),
        installation=installation,
        placement=overlay_spec(service.spec.compute.pod_template),
    )
    return Question(job, config, InspectResult)


def judge(service: InferenceService, known: Known, settings: Settings) -> Verdict:
    """The verdict: what the spec says, then the model's source, its files, and the room that there is."""
    if (problem := refusal(service, settings)) is not None:
        return Verdict(problem=problem)
    source = source_of(service, known.experts)
    if isinstance(source, Problem):
        return Verdict(problem=source, waits=source.reason != Reason.INVALID_CONFIG)
    facts = _facts(service, source, known)
    if not isinstance(facts, ModelFacts):
        waits = isinstance(facts, Pending) or facts == known.missing
        return Verdict(problem=Problem(facts.reason, facts.message), waits=waits)
    fit = fit_of(service, facts)
    pinned = Source(source.uri, facts.commit or source.revision)
    return Verdict(source=pinned, facts=facts, fit=fit, problem=misfit(fit))


def refusal(service: InferenceService, settings: Settings) -> Problem | None:
    """What in the spec the engine or the chart does not allow."""
    wrong = [*problems(service.spec.engine.extra_args), *_wrong_values(service)]
    if wrong:
        return Problem(Reason.BAD_ARGUMENT, redact("; ".join(wrong)))
    namespace = service.metadata.namespace
    if service.spec.model.trust_remote_code and namespace not in settings.remote_code_namespaces:
        return Problem(
            Reason.REMOTE_CODE_NOT_ALLOWED,
            f"spec.model.trustRemoteCode: not allowed in namespace {namespace!r}; set it to false, or list the"
            " namespace in the chart's training.remoteCodeNamespaces",
        )
    return None


def misfit(fit: Fit) -> Problem | None:
    """What to say of a model that cannot fit."""
    if fit.fits:
        return None
    remedy = "lower spec.engine.maxModelLen, quantize the model, or raise spec.compute"
    return Problem(Reason.DOES_NOT_FIT, f"{fit.line}; {remedy}")


def _facts(service: InferenceService, source: Source, known: Known) -> ModelFacts | Pending | Problem:
    """What the model's files say, or what is waited for."""
    if known.inspection is None:
        if service.status.model is not None and is_known(
            service.status.model, inspect_config(subject_of(service, source))
        ):
            return service.status.model
        return known.missing or Pending(Reason.INSPECTING, "the model's files are to be read")
    state = known.inspection.state
    if not isinstance(state, InspectResult):
        return known.missing or state
    return state.model or Problem(Reason.NOT_A_MODEL, f"{source.uri} is no model")


def _wrong_values(service: InferenceService) -> list[str]:
    """Values of fields that vLLM owns."""
    engine = service.spec.engine
    owned = {"dtype": ("dtype", engine.dtype), "kvCacheDtype": ("kv-cache-dtype", engine.kv_cache_dtype)}
    found = {field: value_problem(flag, value) for field, (flag, value) in owned.items() if value is not None}
    return [f"spec.engine.{field}: {problem}" for field, problem in found.items() if problem is not None]
