"""Decide, ask the engines, decide again: what InferenceService and Expert have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Results, perform
from largeforge.controllers.plan import Plan, execute
from largeforge.kube.cluster import Manifest

AGAIN_SECONDS = 10.0
"""Engines and claims send no events: how often one that failed, or is missing, is asked again."""
ROUNDS = 5
"""Chat template, load, probe, and one to spare; each call is made once in a pass, so that the loop ends by itself."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, and what to ask of engines: `calls` before the status is final, `cleanup` after it is written."""

    plan: Plan
    calls: Sequence[Call] = ()
    cleanup: Sequence[Call] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """The part of an observation that engines answer."""

    key: str = ""
    """The engine's key, derived."""
    results: Results = field(default_factory=dict)
    """What came of the calls of this pass."""


A = TypeVar("A", bound=Asked)


async def carry_out(
    observed: A, decide: Callable[[A, datetime], Decision], context: Context, raw: Manifest
) -> float | None:
    """Ask, decide again on what the engines said, and write: objects first, the status once. Returns the next look."""
    decision = decide(observed, context.now())
    written = False
    for _ in range(ROUNDS):
        if not decision.calls:
            break
        if not written:
            # Objects do not wait for an engine that is slow to answer.
            await execute(replace(decision.plan, events=(), status=None), context.cluster, raw, now=context.now())
            written = True
        results = await perform(decision.calls, context.engines, key=observed.key)
        observed = replace(observed, results={**observed.results, **results})
        decision = decide(observed, context.now())
    plan = replace(decision.plan, delete=(), hand_over=(), create=(), apply=()) if written else decision.plan
    await execute(plan, context.cluster, raw, now=context.now())
    undone = await perform(decision.cleanup, context.engines, key=observed.key)
    return AGAIN_SECONDS if any(undone.values()) else plan.again_after
