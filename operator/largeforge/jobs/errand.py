"""How a process that answers one question runs: it reads it, answers, and leaves the answer as termination message."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Generic, Protocol, TypeVar

from largeforge.api.common import ErrorDetail
from largeforge.api.messages import QUESTION
from largeforge.api.model import StrictModel
from largeforge.api.names import ExitCode, Reason
from largeforge.api.run import TERMINATION_LOG
from largeforge.jobs.errors import RunError, from_exception

Q = TypeVar("Q", bound=StrictModel)


class Stopped(BaseException):
    """SIGTERM came. No error: a library that catches those must not catch this."""


class Answer(Protocol):
    """A result that fits the termination message."""

    @property
    def error(self) -> ErrorDetail | None:
        """Why there is none."""
        ...

    def message(self) -> str:
        """Its JSON."""
        ...


@dataclass(frozen=True, slots=True)
class Errand(Generic[Q]):
    """What a process does."""

    name: str
    question: type[Q]
    answer: Callable[[Q], Answer]
    """Raises a `RunError` where there is none."""
    failed: Callable[[Q | None, ErrorDetail], Answer]
    """The answer that there is none."""


def run(errand: Errand[Q], arguments: list[str] | None, environment: Mapping[str, str] = os.environ) -> int:
    """Answer the question in *environment*; the exit code says whether another try could cure a failure."""
    parser = argparse.ArgumentParser(prog=f"largeforge.jobs.{errand.name}")
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    options = parser.parse_args(arguments)
    os.umask(0o002)
    # PID 1 has no default action for it: without a handler SIGTERM would be lost.
    signal.signal(signal.SIGTERM, _stop)
    result, code = _answered(errand, environment)
    say("done" if result.error is None else f"failed: {result.error.reason}: {result.error.message}")
    try:
        options.termination_log.write_text(result.message())
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)  # noqa: T201
    return code


def say(line: str) -> None:
    """A line of the pod's log."""
    print(line, flush=True)  # noqa: T201


def _answered(errand: Errand[Q], environment: Mapping[str, str]) -> tuple[Answer, int]:
    try:
        asked = errand.question.model_validate_json(environment.get(QUESTION, ""))
    except ValueError as error:
        text = f"{QUESTION} cannot be read ({type(error).__name__}); operator and trainer image must be of one version"
        return errand.failed(None, ErrorDetail(reason=Reason.INVALID_CONFIG, message=text)), ExitCode.INVALID_CONFIG
    try:
        return errand.answer(asked), 0
    except Stopped:
        detail = ErrorDetail(reason=Reason.DISRUPTED, message="stopped by SIGTERM; it begins anew")
        return errand.failed(asked, detail), ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user reads it in status
        failure = from_exception(error)
        if not isinstance(error, RunError):
            # The frames without the texts, which could hold content.
            sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
        return errand.failed(asked, failure.detail()), failure.exit_code


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped
