"""What a run measured on its held-out rows, against what `spec.gate` asks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import GateRecord, GateResult
from largeforge.api.training import Gate


def judge(gate: Gate, metrics: Sequence[Metric]) -> GateRecord:
    """The verdict and each comparison; what was not measured does not pass.

    It is judged anew from the recorded figures whenever the spec changes: a threshold starts no run.
    """
    values = {m.name: _number(m.value) for m in metrics}
    loss = values.get("eval_loss", math.nan)
    results = []
    if gate.max_eval_loss is not None:
        results.append(_result("maxEvalLoss", loss, gate.max_eval_loss, passed=loss <= gate.max_eval_loss))
    if gate.max_perplexity is not None:
        perplexity = values.get("perplexity", _exponential(loss))
        results.append(
            _result("maxPerplexity", perplexity, gate.max_perplexity, passed=perplexity <= gate.max_perplexity)
        )
    if gate.compare_with is not None:
        before = values.get("eval_loss_before", math.nan)
        results.append(_result("compareWith", loss, before, passed=loss < before))
    if all(result.passed for result in results):
        return GateRecord(verdict="Passed", results=results)
    return GateRecord(verdict="Failed" if gate.on_failure == "Block" else "Warned", results=results)


def is_measured(record: GateRecord) -> bool:
    """Whether all that is compared is known."""
    return all(result.value and result.limit for result in record.results)


def words(record: GateRecord) -> str:
    """The comparisons in one line, those that fail first."""
    return "; ".join(_words(result) for result in sorted(record.results, key=lambda result: result.passed))


def _words(result: GateResult) -> str:
    if not (result.value and result.limit):
        return f"spec.gate.{result.check}: the run measured no held-out loss to compare"
    if result.check == "compareWith":
        relation = "below" if result.passed else "not below"
        return f"spec.gate.compareWith: held-out loss {result.value} is {relation} the base's {result.limit}"
    return f"spec.gate.{result.check}: {result.value} is {'at most' if result.passed else 'above'} {result.limit}"


def _result(check: str, value: float, limit: float, *, passed: bool) -> GateResult:
    return GateResult(check=check, value=_text(value), limit=_text(limit), passed=passed)


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _exponential(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
