"""The lines that say how far a run is; the contract is in `docs/contracts.md`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from largeforge.jobs.errors import RunError

MIN_SECONDS_BETWEEN_LINES = 0.3


def step_line(step: int, total: int, *, loss: float, learning_rate: float, eta_seconds: float) -> str:
    """`step 12/60 loss 1.832 lr 1.9e-04 eta 41s`."""
    return f"step {step}/{total} loss {loss:.3f} lr {learning_rate:.1e} eta {max(0, round(eta_seconds))}s"


def eval_line(loss: float) -> str:
    """`eval_loss 1.21`."""
    return f"eval_loss {loss:.3g}"


@dataclass(slots=True)
class Progress:
    """Turns the trainer's log entries into lines, a few in a second at most, the last step always."""

    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    started: float = 0.0
    _last_line: float = field(default=-math.inf)

    def begin(self) -> None:
        """The first step begins."""
        self.started = self.now()

    def evaluated(self, loss: float) -> float:
        """Say the held-out *loss*, and return it; one that is no number ends the run."""
        if not math.isfinite(loss):
            raise RunError(
                f"the held-out loss is {loss}; lower training.learningRate", field="spec.training.learningRate"
            )
        self.say(eval_line(loss))
        return loss

    def step(self, logs: Mapping[str, float], *, step: int, total: int) -> None:
        """One optimizer step is done; a loss that is no number ends the run, for what comes after is no model."""
        loss = logs.get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise RunError(
                f"the loss became {loss} at step {step}; lower training.learningRate, or set training.precision: FP32",
                field="spec.training.learningRate",
            )
        moment = self.now()
        if moment - self._last_line < MIN_SECONDS_BETWEEN_LINES and step < total:
            return
        self._last_line = moment
        eta = (moment - self.started) / step * (total - step)
        self.say(step_line(step, total, loss=loss, learning_rate=logs.get("learning_rate", 0.0), eta_seconds=eta))
