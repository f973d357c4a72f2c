"""What a method's result loses, against what `spec.qualityGate` allows; and which result is taken. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.common import ErrorDetail
from largeforge.api.names import Reason
from largeforge.api.quantizejob import QualityGate, QuantizeJobSpec
from largeforge.api.quantizejobstatus import EvaluationRecord, MethodAttempt


@dataclass(frozen=True, slots=True)
class Chosen:
    """The result of this method is taken."""

    method: int


@dataclass(frozen=True, slots=True)
class Next:
    """This method is tried."""

    method: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """No method's result is taken."""


def measured(attempt: MethodAttempt, before: EvaluationRecord, after: EvaluationRecord) -> MethodAttempt:
    """*attempt* with its result's perplexity."""
    old, new = _number(before.perplexity), _number(after.perplexity)
    increase = 100 * (new - old) / old if old > 0 else math.nan
    figures = {
        "perplexity_before": before.perplexity,
        "perplexity_after": after.perplexity,
        "increase_percent": f"{increase:.2f}"[:16],
    }
    return attempt.model_copy(update=figures)


def errored(attempt: MethodAttempt, cause: ErrorDetail) -> MethodAttempt:
    """*attempt*, which came to nothing that could be measured."""
    return attempt.model_copy(update={"verdict": "Error", "reason": cause.reason, "message": cause.message[:1024]})


def judged(gate: QualityGate, attempts: Sequence[MethodAttempt]) -> list[MethodAttempt]:
    """*attempts* with the verdicts that *gate* gives now: a threshold starts no run."""
    return [_judged(gate, attempt) for attempt in attempts]


def conclude(spec: QuantizeJobSpec, attempts: Sequence[MethodAttempt]) -> Chosen | Next | Blocked | None:
    """What follows from the verdicts, in the order of `spec.methods`; None while a method is at work."""
    for place in range(len(spec.methods)):
        if place >= len(attempts):
            return Next(place)
        verdict = attempts[place].verdict
        if verdict is None:
            return None
        if verdict in ("Passed", "Warned"):
            return Chosen(place)
        if verdict == "Failed" and spec.quality_gate.on_failure == "Fail":
            return Blocked()
    return Blocked()


def is_measured(attempts: Sequence[MethodAttempt]) -> bool:
    """Whether a looser gate could let one of *attempts* out."""
    return any(attempt.perplexity_after is not None for attempt in attempts)


def words(attempts: Sequence[MethodAttempt]) -> str:
    """What the methods came to, in one line."""
    return "; ".join(f"{attempt.method}: {attempt.message}" for attempt in attempts if attempt.message)


def _judged(gate: QualityGate, attempt: MethodAttempt) -> MethodAttempt:
    if attempt.perplexity_before is None or attempt.perplexity_after is None:
        return attempt
    before, after = attempt.perplexity_before, attempt.perplexity_after
    increase = f"{attempt.increase_percent} %"
    limit = gate.max_perplexity_increase_percent
    failing = []
    if not _number(attempt.increase_percent or "") <= limit:
        failing.append(f"spec.qualityGate.maxPerplexityIncreasePercent: {increase} is above {limit:g} %")
    if gate.max_perplexity is not None and not _number(after) <= gate.max_perplexity:
        failing.append(f"spec.qualityGate.maxPerplexity: {after} is above {gate.max_perplexity:g}")
    said = f"perplexity {before} became {after}"
    if not failing:
        update = {"verdict": "Passed", "reason": Reason.GATE_PASSED, "message": f"{said} ({increase})"}
    else:
        verdict = "Warned" if gate.on_failure == "Warn" else "Failed"
        message = f"{said}: {', and '.join(failing)}"
        update = {"verdict": verdict, "reason": Reason.GATE_FAILED, "message": message[:1024]}
    return attempt.model_copy(update=update)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
