"""How far a run is: the lines of the log, and an estimate of the time that is left. The contract is in
`docs/contracts.md`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from largeforge.jobs.errors import RunError

MIN_SECONDS_BETWEEN_LINES = 0.3
_WINDOW = 50
"""Steps that the speed is taken from: enough to even out, and few enough to follow a change."""


def step_line(step: int, total: int, *, loss: float, learning_rate: float, eta_seconds: float) -> str:
    """`step 12/60 loss 1.832 lr 1.9e-04 eta 41s`."""
    return f"step {step}/{total} loss {loss:.3f} lr {learning_rate:.1e} eta {max(0, round(eta_seconds))}s"


def block_line(number: int, total: int, *, eta_seconds: float, what: str = "block") -> str:
    """`block 3/30 eta 41s`."""
    return f"{what} {number}/{total} eta {max(0, round(eta_seconds))}s"


def eval_line(loss: float) -> str:
    """`eval_loss 1.21`."""
    return f"eval_loss {loss:.3g}"


def check_loss(loss: float, *, step: int) -> None:
    """Raise where *loss* is no number, for what comes after it is no model."""
    if not math.isfinite(loss):
        raise RunError(
            f"the loss became {loss} at step {step}; lower spec.training.learningRate, or set"
            " spec.training.precision: FP32",
            field="spec.training.learningRate",
        )


@dataclass(slots=True)
class Progress:
    """Says lines, a few in a second at most, the last step always; measures the speed of the newest steps."""

    say: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    _marks: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW + 1))
    _last_line: float = field(default=-math.inf)

    def begin(self, step: int) -> None:
        """Training goes on after *step*; what came before says nothing about the speed."""
        self._marks.clear()
        self._marks.append((step, self.now()))

    def done(self, step: int) -> None:
        """*step* is done."""
        self._marks.append((step, self.now()))

    def eta_seconds(self, total: int) -> float:
        """The seconds until step *total* at the speed of the newest steps, pauses for evaluation among them."""
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        return (ended - began) / (last - first) * (total - last) if last > first else 0.0

    def evaluated(self, loss: float) -> None:
        """Say the held-out *loss*; one that is no number ends the run."""
        if not math.isfinite(loss):
            raise RunError(
                f"the held-out loss is {loss}; lower spec.training.learningRate", field="spec.training.learningRate"
            )
        self.say(eval_line(loss))

    def step(self, step: int, total: int, *, loss: float, learning_rate: float) -> None:
        """Say where training is."""
        moment = self.now()
        if moment - self._last_line < MIN_SECONDS_BETWEEN_LINES and step < total:
            return
        self._last_line = moment
        self.say(step_line(step, total, loss=loss, learning_rate=learning_rate, eta_seconds=self.eta_seconds(total)))
