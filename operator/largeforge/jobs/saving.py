"""When a checkpoint is due, and what an attempt knows of its own time. Pure; needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from largeforge.api.run import CheckpointSettings

JOURNAL_SECONDS = 10
"""Between two entries of the journal: what a killed attempt lost is known to so many seconds."""


@dataclass(slots=True)
class Schedule:
    """Says after which step a checkpoint is due; the first rank's clock decides for all."""

    settings: CheckpointSettings
    now: Callable[[], float] = time.monotonic
    _saved: float = field(default=0.0)

    def begin(self) -> None:
        """Training begins, or a checkpoint was written: the interval starts anew."""
        self._saved = self.now()

    def due(self, step: int) -> bool:
        """Whether one is due after *step*; where nothing will go on from it, none ever is."""
        if not self.settings.resume:
            return False
        if self.settings.every_steps is not None:
            return step % self.settings.every_steps == 0
        return self.settings.every_minutes is not None and self.now() - self._saved >= 60 * self.settings.every_minutes


@dataclass(slots=True)
class Stopwatch:
    """How long training took, over all attempts that led to the newest step, and how much of it waited for data."""

    earlier: float = 0.0
    """Seconds that lie in the checkpoint that the attempt went on from."""
    now: Callable[[], float] = time.monotonic
    data_seconds: float = 0.0
    steps_seconds: float = 0.0
    _began: float = field(default=0.0)
    _mark: float = field(default=0.0)

    def begin(self) -> None:
        """Training begins."""
        self._began = self.now()

    def data_begins(self) -> None:
        """The next batches are asked for."""
        self._mark = self.now()

    def data_ends(self) -> None:
        """They are here; the step begins."""
        moment = self.now()
        self.data_seconds += moment - self._mark
        self.steps_seconds += moment - self._mark
        self._mark = moment

    def step_ends(self) -> None:
        """The step is done."""
        moment = self.now()
        self.steps_seconds += moment - self._mark
        self._mark = moment

    @property
    def trained_seconds(self) -> float:
        """From the first step on, evaluations and checkpoints among it, over all attempts."""
        return self.earlier + (self.now() - self._began)
