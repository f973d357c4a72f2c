"""Which route a call gets, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from largeforge.router.classifier import LOOK_BACK, Choice, Classifier, Outlook
from largeforge.router.defaults import Operation
from largeforge.router.learnt import Learnt
from largeforge.router.openai import AUTO, INVALID, ApiError, shown, unavailable, unknown_model
from largeforge.router.scan import Call
from largeforge.router.table import Route, View
from largeforge.router.terms import Floats


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


@dataclass(frozen=True, slots=True)
class Question:
    """Whom a call's text is for; some texts must be embedded before that is known."""

    view: View
    classifier: Classifier
    outlook: Outlook
    retry_after_seconds: int

    @property
    def wanted(self) -> tuple[str, ...]:
        """The texts to embed."""
        return self.outlook.wanted

    def choice(self, embeddings: Mapping[str, Floats]) -> Choice:
        """The classifier's word; without *embeddings* that of its cheaper parts."""
        return self.classifier.settle(self.outlook, embeddings)

    def decision(self, embeddings: Mapping[str, Floats]) -> Decision:
        """The route of it, or an `ApiError` where there is none."""
        return decided(self.view, self.choice(embeddings), retry_after_seconds=self.retry_after_seconds)


def question(view: View, call: Call, learnt: Learnt | None, *, retry_after_seconds: int) -> Question:
    """What the cheaper parts of the classifier find in *call*."""
    classifier = Classifier(view.matcher, view.rules, learnt)
    outlook = classifier.look(call.user_texts(LOOK_BACK + 1))
    return Question(view, classifier, outlook, retry_after_seconds)


def resolve(
    view: View,
    call: Call,
    operation: Operation = Operation.CHAT,
    *,
    learnt: Learnt | None = None,
    retry_after_seconds: int,
) -> Decision | Question:
    """The route of *call* among those that its client sees, or the `ApiError` that says why there is none.

    A question where a text must be embedded first.
    """
    if call.model == AUTO:
        require_decidable(call, operation)
        texts = call.user_texts(LOOK_BACK + 1)
        choice = Classifier(view.matcher, view.rules, learnt, view.reach).at_once(texts)
        if choice is not None:
            return decided(view, choice, retry_after_seconds=retry_after_seconds)
        found = question(view, call, learnt, retry_after_seconds=retry_after_seconds)
        return found if found.wanted else found.decision({})
    return named(view, call.model, retry_after_seconds=retry_after_seconds)


def named(view: View, model: str, *, retry_after_seconds: int) -> Decision:
    """The route that has this name, or the `ApiError` that says why there is none."""
    route = view.routes.get(model)
    if route is not None:
        return Decision(route, route.reason, 1.0)
    if model in view.unready:
        raise unavailable(
            f"expert '{model}' is not ready: {view.unready[model]}",
            code="expert_not_ready",
            retry_after_seconds=retry_after_seconds,
        )
    if model in view.disabled:
        raise ApiError(
            404,
            f"expert '{shown(model)}' is disabled; set its spec.routing.enabled to true",
            code="model_not_found",
            param="model",
        )
    raise unknown_model(model)


def require_decidable(call: Call, operation: Operation) -> None:
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


def decided(view: View, choice: Choice, *, retry_after_seconds: int) -> Decision:
    """The route of *choice*: that of its expert, else the fallback's, else an `ApiError`."""
    if choice.expert is not None:
        return Decision(view.routes[choice.expert], choice.reason, choice.score)
    if view.fallback is not None:
        return Decision(view.fallback, choice.reason, 0.0)
    if view.fallback_unready is not None:
        raise unavailable(
            f"no expert fits the message, and the fallback is not ready: {view.fallback_unready}",
            code="expert_not_ready",
            retry_after_seconds=retry_after_seconds,
        )
    raise ApiError(
        404,
        "no expert's keywords or examples fit the last user message, and no ready expert is the fallback;"
        " name one of GET /v1/models, or set spec.routing.fallback of an Expert to true",
        kind=INVALID,
        code="model_not_found",
        param="model",
    )
