"""Which route a call gets, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from largeforge.router.classify import best
from largeforge.router.defaults import Operation
from largeforge.router.openai import AUTO, INVALID, ApiError, shown, unavailable, unknown_model
from largeforge.router.scan import Call
from largeforge.router.table import Route, View

KEYWORD = "keyword"
FALLBACK = "fallback"


@dataclass(slots=True)
class Decision:
    """The route of one call."""

    route: Route
    reason: str
    score: float

    def headers(self) -> bytes:
        """The lines that tell the client."""
        return (
            f"x-largeforge-expert: {self.route.name}\r\n"
            f"x-largeforge-reason: {self.reason}\r\n"
            f"x-largeforge-score: {self.score:.2f}\r\n"
        ).encode()


def resolve(view: View, call: Call, operation: Operation = Operation.CHAT, *, retry_after_seconds: int) -> Decision:
    """The route of *call* among those that its client sees, or the `ApiError` that says why there is none."""
    if call.model == AUTO:
        _require_decidable(call, operation)
        return _automatic(view, call, retry_after_seconds)
    route = view.routes.get(call.model)
    if route is not None:
        return Decision(route, route.reason, 1.0)
    if call.model in view.unready:
        raise unavailable(
            f"expert '{call.model}' is not ready: {view.unready[call.model]}",
            code="expert_not_ready",
            retry_after_seconds=retry_after_seconds,
        )
    if call.model in view.disabled:
        raise ApiError(
            404,
            f"expert '{shown(call.model)}' is disabled; set its spec.routing.enabled to true",
            code="model_not_found",
            param="model",
        )
    raise unknown_model(call.model)


def explain(view: View, call: Call, *, retry_after_seconds: int) -> bytes:
    """The answer to `POST /v1/route`: the decision, and the score of every expert that the client sees."""
    decision = resolve(view, call, retry_after_seconds=retry_after_seconds)
    found = view.matcher.scores(call.user_text())
    experts = [name for name, route in view.routes.items() if route.reason == "pinned"]
    ranked = sorted(experts, key=lambda name: (-found.get(name, 0.0), name))
    answer: dict[str, Any] = {
        "object": "largeforge.route",
        "expert": decision.route.name,
        "reason": decision.reason,
        "score": round(decision.score, 2),
        "scores": [{"expert": name, "score": round(found.get(name, 0.0), 2)} for name in ranked],
    }
    return msgspec.json.encode(answer)


def _require_decidable(call: Call, operation: Operation) -> None:
    """What only one expert can answer is not given to another by its words."""
    if operation is Operation.EMBEDDINGS:
        why = "the vectors of different models cannot be compared"
    elif call.follows_response:
        why = "only the model that gave the previous response knows it"
    else:
        return
    raise ApiError(
        400,
        f"model 'auto' cannot be used here, because {why}; name one of GET /v1/models",
        code="model_required",
        param="model",
    )


def _automatic(view: View, call: Call, retry_after_seconds: int) -> Decision:
    scores = view.matcher.scores(call.user_text())
    winner = best({name: score for name, score in scores.items() if name in view.routes})
    if winner is not None:
        return Decision(view.routes[winner[0]], KEYWORD, winner[1])
    if view.fallback is not None:
        return Decision(view.fallback, FALLBACK, 0.0)
    if view.fallback_unready is not None:
        raise unavailable(
            f"no expert's keywords match, and the fallback is not ready: {view.fallback_unready}",
            code="expert_not_ready",
            retry_after_seconds=retry_after_seconds,
        )
    raise ApiError(
        404,
        "no expert's keywords match the last user message, and no ready expert is the fallback;"
        " name one of GET /v1/models, or set spec.routing.fallback of an Expert to true",
        kind=INVALID,
        code="model_not_found",
        param="model",
    )
