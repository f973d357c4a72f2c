"""The perplexity of the model that the engine beside it serves: `python -m largeforge.jobs.evaluate [CONFIG]`, PID 1.

The engine is asked for the log-probability of each token of each held-out window. The perplexity is the exponential of
their negative mean: `exp(-(1/N) * sum(log p(token | tokens before it in its window)))`, where N counts all tokens but
the first of each window. Source and results answer the same windows, so their figures are comparable, and the engine
that gives them is the one that will serve.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from largeforge.api.quantize import EvaluateConfig, QuantizeResult
from largeforge.api.quantizejobstatus import EvaluationRecord
from largeforge.jobs import evaluateengine, prepared, quantizestep
from largeforge.jobs.progress import Progress, block_line
from largeforge.jobs.quantizeerrors import EvaluationRefusedError
from largeforge.jobs.quantizestep import say
from largeforge.jobs.reporter import Reporter, Snapshot

Score = Callable[[Sequence[int]], list[float]]
"""The log-probability of each token of a window but the first."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the windows came to."""

    logprobs: float
    """The sum."""
    tokens: int
    windows: int

    @property
    def perplexity(self) -> float:
        """The exponential of the negative mean; infinity where a float cannot hold it."""
        try:
            return math.exp(-self.logprobs / self.tokens)
        except OverflowError:
            return math.inf


def main(argv: list[str] | None = None) -> int:
    """Measure the configured model; return the exit code."""
    return quantizestep.main(argv, prog="largeforge.jobs.evaluate", step=step)


def step(path: Path) -> quantizestep.Step:
    """What *path* configures, not yet begun."""
    config = EvaluateConfig.model_validate_json(path.read_bytes())
    return quantizestep.Step("Evaluate", config.digest, lambda: run(config))


def run(config: EvaluateConfig) -> QuantizeResult:
    """The perplexity of the model that the engine serves."""
    began = time.monotonic()
    say(f"{config.job} run {config.run}: evaluate {config.subject}")
    windows = prepared.read_windows(Path(config.prepared_path), expected=config.windows_digest)
    engine = evaluateengine.Engine(config.engine_url, config.model_name)
    engine.wait()
    reporter = Reporter.from_environment(os.environ)
    try:
        found = measure(windows, engine.score, reporter)
    finally:
        reporter.close()
    if not math.isfinite(found.perplexity):
        raise EvaluationRefusedError(
            f"{config.subject}: its perplexity is no number, so its weights are damaged", field=config.field
        )
    return QuantizeResult(
        outcome="Succeeded",
        stage="Evaluate",
        run_digest=config.digest,
        evaluation=EvaluationRecord(perplexity=f"{found.perplexity:.6g}", tokens=found.tokens, windows=found.windows),
        seconds=round(time.monotonic() - began),
    )


def measure(windows: Sequence[Sequence[int]], score: Score, reporter: Reporter) -> Measured:
    """Ask for each window, one after the other: what an engine answers depends on what else is in its batch."""
    progress = Progress(say)
    progress.begin(0)
    total, tokens = 0.0, 0
    for number, window in enumerate(windows, start=1):
        logprobs = score(window)
        if len(logprobs) != len(window) - 1:
            raise EvaluationRefusedError(
                f"the engine gave {len(logprobs)} log-probabilities for a window of {len(window)} tokens; its version"
                " is not one that was tested"
            )
        total += math.fsum(logprobs)
        tokens += len(logprobs)
        progress.done(number)
        eta = progress.eta_seconds(len(windows))
        if number % 8 == 0 or number == len(windows):
            say(block_line(number, len(windows), eta_seconds=eta, what="window"))
        reporter.update(Snapshot(step=number, total_steps=len(windows), eta_seconds=eta))
    return Measured(total, tokens, len(windows))


if __name__ == "__main__":
    sys.exit(main())
