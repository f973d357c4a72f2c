"""The answer to `POST /v1/route`: what was decided, the scores of which parts, and what was left out of account.

It says nothing of the text but lengths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from largeforge.router.classifier import LOOK_BACK, Choice, Parts, Rule
from largeforge.router.classify import WINDOW
from largeforge.router.openai import AUTO
from largeforge.router.resolve import Decision, Question, decided, named
from largeforge.router.scan import Call
from largeforge.router.terms import Floats
from largeforge.router.undecided import NO_MODEL

DIGITS = 4


USED = "used"
NOT_NEEDED = "not needed: the decision is clear without"
NO_EXAMPLES = "not needed: no expert has learnt from examples"


def explain(call: Call, asked: Question, embeddings: Mapping[str, Floats], *, without: str) -> bytes:
    """The explanation of *call*; *without* says why there are no embeddings, where some were wanted."""
    choice = asked.choice(embeddings)
    decision = _decision(call, asked, choice)
    view = asked.view
    ranked = choice.ranked()
    silent = sorted(view.rules.keys() - choice.parts.keys())
    second = next((name for name in ranked if name != decision.route.name and choice.parts[name].score > 0), None)
    answer: dict[str, Any] = {
        "object": "largeforge.route",
        "expert": decision.route.name,
        "reason": decision.reason,
        "score": round(decision.score, 2),
        "runner_up": second,
        "embedding": _embedding(asked, embeddings, without),
        "fallback": view.fallback.name if view.fallback else None,
        "scores": [_scores(name, choice.parts.get(name, Parts()), view.rules[name]) for name in [*ranked, *silent]],
        "ignored": _ignored(call, asked),
    }
    return msgspec.json.encode(answer)


def _decision(call: Call, asked: Question, choice: Choice) -> Decision:
    if call.model != AUTO:
        return named(asked.view, call.model, retry_after_seconds=asked.retry_after_seconds)
    return decided(asked.view, choice, retry_after_seconds=asked.retry_after_seconds)


def _scores(name: str, parts: Parts, rule: Rule) -> dict[str, Any]:
    return {
        "expert": name,
        "score": round(parts.score, 2),
        "total": round(parts.total, DIGITS),
        "threshold": rule.threshold,
        "parts": {part: round(value, DIGITS) for part, value in parts._asdict().items()},
    }


def _embedding(asked: Question, embeddings: Mapping[str, Floats], without: str) -> str:
    learnt = asked.classifier.learnt
    if learnt is None:
        return NO_EXAMPLES
    if learnt.full is None:
        return NO_MODEL
    if not asked.wanted:
        return NOT_NEEDED
    return USED if embeddings else without


def _ignored(call: Call, asked: Question) -> list[dict[str, str]]:
    """What did not count, and why."""
    view = asked.view
    texts = call.user_texts(LOOK_BACK + 2)
    found = [{"expert": name, "why": f"it is not ready: {why}"} for name, why in sorted(view.unready.items())]
    found += [{"expert": name, "why": "its spec.routing.enabled is false"} for name in sorted(view.disabled)]
    if len(texts) > LOOK_BACK + 1:
        found.append({"part": "messages", "why": f"only the last {LOOK_BACK + 1} messages of the user count"})
    if any(len(text) > 2 * WINDOW for text in texts[-LOOK_BACK - 1 :]):
        found.append({"part": "text", "why": f"of a message the first and the last {WINDOW} characters count"})
    return found
