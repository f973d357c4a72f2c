"""`Compatible`: whether an Expert's service can serve what was resolved, and what it asks of an engine for that."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Resolved
from largeforge.api.meta import Condition
from largeforge.api.names import COMPATIBLE, Reason
from largeforge.controllers.engine import Call, Tokens, Trouble
from largeforge.controllers.expertplacement import Observed, Placing
from largeforge.controllers.expertrules import mismatch, template_problem, without_slot
from largeforge.controllers.namesakes import taken


def fitting(expert: Expert, resolved: Resolved | None, observed: Observed) -> tuple[Condition, Sequence[Call]]:
    """`Compatible`, and what is still to be asked of an engine for it: whether its chat template is the trained one.

    That is asked before anything is loaded; a version that is proven somewhere has been asked for.
    """
    fits = compatible(expert, resolved, observed)
    ready = next((pod for pod in observed.pods if pod.ready), None)
    if fits.status != "True" or resolved is None or not resolved.probes or ready is None:
        return fits, ()
    placing = Placing(expert, observed, wish=resolved, old=None)
    if any(placing.loaded(pod, resolved) for pod in placing.ready) and expert.spec.type == "Adapter":
        return fits, ()
    call = Call("tokens", ready, expert.spec.service_name)
    match observed.results.get(call):
        case Tokens() as tokens:
            problem = template_problem(resolved, tokens, service=expert.spec.service_name)
            return (fits if problem is None else _fits("False", problem.reason, problem.message)), ()
        case Trouble() as trouble:
            return _fits("Unknown", Reason.ENGINE_SILENT, f"pod {ready.name}: {trouble.message}"), ()
        case _:
            return _fits("Unknown", Reason.PENDING, f"pod {ready.name} has not told its chat template yet"), [call]


def compatible(expert: Expert, resolved: Resolved | None, observed: Observed) -> Condition:
    """`Compatible`: whether the service can serve what was resolved."""
    name, service = expert.spec.service_name, observed.service
    held_by = taken(expert, observed.namesake, name=expert.metadata.name)
    if held_by is not None:
        return _fits("False", Reason.NAME_TAKEN, held_by)
    if service is None:
        said = f"spec.inferenceServiceRef: no InferenceService {name!r} in namespace {expert.metadata.namespace!r}"
        return _fits("False", Reason.SERVICE_NOT_FOUND, said)
    if resolved is None:
        return _fits("Unknown", Reason.PENDING, "there is no artifact yet")
    problem = mismatch(expert, resolved, service, observed.siblings) or without_slot(expert, observed.siblings, service)
    if problem is not None:
        return _fits("False", problem.reason, problem.message)
    return _fits("True", Reason.COMPATIBLE, f"InferenceService {name!r} can serve it")


def _fits(status: str, reason: str, message: str) -> Condition:
    return Condition.model_validate({"type": COMPATIBLE, "status": status, "reason": reason, "message": message})


def still_served(expert: Expert, observed: Observed, wish: Resolved | None, fits: Condition) -> Resolved | None:
    """The version that is placed, where it is not the wish and nothing but the new version speaks against it."""
    placed = expert.status.placement.resolved if expert.status.placement else None
    if placed is None or observed.service is None or (wish is not None and placed.engine_name == wish.engine_name):
        return None
    if fits.reason in (Reason.NAME_TAKEN, Reason.SLOTS_EXHAUSTED) or mismatch(
        expert, placed, observed.service, observed.siblings
    ):
        return None
    same_name = expert.spec.type == "Adapter" or placed.engine_name == observed.service.metadata.name
    return placed if same_name else None
