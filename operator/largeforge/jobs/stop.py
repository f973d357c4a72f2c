"""How a wish to stop reaches the ranks: a file in the launcher's folder. Needs no torch.

Not a signal: torchrun answers SIGTERM by ending its workers at once, and a rank that acts on its own leaves the others
waiting in their next exchange. So the launcher writes the file, each rank looks for it at the end of a step, and they
agree. Before training has begun nobody looks, and there is nothing to save: then the launcher ends them. After the last
step nobody looks either: the result is written as long as the grace lasts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from largeforge.jobs.report import STATE_DIR

_REQUEST = "stop"
_LISTENING = "training"


class StoppedError(Exception):
    """The run was asked to stop, and the ranks have agreed to."""


def request(folder: Path) -> None:
    """Ask the ranks to stop."""
    (folder / _REQUEST).touch()


def listening(folder: Path) -> bool:
    """Whether training has begun, so that the ranks look for the request."""
    return (folder / _LISTENING).exists()


def listen(environment: Mapping[str, str] = os.environ) -> None:
    """From now on this rank looks for the request."""
    if (folder := environment.get(STATE_DIR)) is not None:
        (Path(folder) / _LISTENING).touch()


def requested(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher asks to stop."""
    folder = environment.get(STATE_DIR)
    return folder is not None and (Path(folder) / _REQUEST).exists()
