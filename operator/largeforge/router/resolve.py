"""Which route a call gets, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from largeforge.router.classify import best
from largeforge.router.openai import AUTO, INVALID, ApiError, shown, unavailable, unknown_model
from largeforge.router.scan import Call
from largeforge.router.table import Route, RouteTable

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


def resolve(table: RouteTable, call: Call, *, retry_after_seconds: int) -> Decision:
    """The route of *call*, or the `ApiError` that says why there is none."""
    if call.model == AUTO:
        return _automatic(table, call, retry_after_seconds)
    route = table.routes.get(call.model)
    if route is not None:
        return Decision(route, route.reason, 1.0)
    if call.model in table.unready:
        raise unavailable(
            f"expert '{call.model}' is not ready: {table.unready[call.model]}",
            code="expert_not_ready",
            retry_after_seconds=retry_after_seconds,
        )
    if call.model in table.disabled:
        raise ApiError(
            404,
            f"expert '{shown(call.model)}' is disabled; set its spec.routing.enabled to true",
            code="model_not_found",
            param="model",
        )
    raise unknown_model(call.model)


def explain(table: RouteTable, call: Call, *, retry_after_seconds: int) -> bytes:
    """The answer to `POST /v1/route`: the decision, and every expert's score."""
    decision = resolve(table, call, retry_after_seconds=retry_after_seconds)
    found = table.matcher.scores(call.user_text())
    experts = [name for name, route in table.routes.items() if route.reason == "pinned"]
    ranked = sorted(experts, key=lambda name: (-found.get(name, 0.0), name))
    answer: dict[str, Any] = {
        "object": "largeforge.route",
        "expert": decision.route.name,
        "reason": decision.reason,
        "score": round(decision.score, 2),
        "scores": [{"expert": name, "score": round(found.get(name, 0.0), 2)} for name in ranked],
    }
    return msgspec.json.encode(answer)


def _automatic(table: RouteTable, call: Call, retry_after_seconds: int) -> Decision:
    winner = best(table.matcher.scores(call.user_text()))
    if winner is not None:
        return Decision(table.routes[winner[0]], KEYWORD, winner[1])
    if table.fallback is not None:
        return Decision(table.fallback, FALLBACK, 0.0)
    if table.fallback_unready is not None:
        raise unavailable(
            f"no expert's keywords match, and the fallback is not ready: {table.fallback_unready}",
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
