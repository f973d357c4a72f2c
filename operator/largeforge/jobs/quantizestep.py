"""A step of a QuantizeJob from PID 1 to the termination message; the same for all stages. Needs no torch."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from largeforge.api.common import ErrorDetail
from largeforge.api.names import ExitCode, Reason
from largeforge.api.quantize import QuantizeResult, Stage
from largeforge.api.run import CONFIG_DIR, CONFIG_FILE, TERMINATION_LOG
from largeforge.jobs import quantizeerrors
from largeforge.jobs.errors import RunError


class Stopped(BaseException):
    """SIGTERM came. No error: a library that catches those must not catch this."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step whose configuration could be read."""

    stage: Stage
    digest: str
    """The run's."""
    work: Callable[[], QuantizeResult]


def main(argv: list[str] | None, *, prog: str, step: Callable[[Path], Step]) -> int:
    """Read the configuration, work, and leave the termination message; return the exit code."""
    parser = argparse.ArgumentParser(prog=prog, description="Do one step of a QuantizeJob.")
    parser.add_argument("config", nargs="?", type=Path, default=Path(CONFIG_DIR) / CONFIG_FILE)
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    options = parser.parse_args(argv)
    os.umask(0o002)
    # PID 1 has no default action for it: without a handler SIGTERM would be lost.
    signal.signal(signal.SIGTERM, _stop)
    result, code = run(options.config, step)
    say(ending_line(result))
    try:
        options.termination_log.write_text(result.message())
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)  # noqa: T201
    return code


def run(path: Path, step: Callable[[Path], Step]) -> tuple[QuantizeResult, int]:
    """Do what *path* configures; return the result and the exit code."""
    try:
        made = step(path)
    except (OSError, ValueError) as error:
        text = f"{path}: cannot be read as the configuration of a step ({type(error).__name__}); operator and quantizer"
        detail = ErrorDetail(reason=Reason.INVALID_CONFIG, message=f"{text} image must be of one version")
        return QuantizeResult(outcome="Failed", stage="Preflight", error=detail), ExitCode.INVALID_CONFIG
    try:
        return made.work(), 0
    except Stopped:
        text = f"{made.stage.lower()} was stopped by SIGTERM; it begins anew, and what is whole is kept"
        return _failed(made, ErrorDetail(reason=Reason.DISRUPTED, message=text)), ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user reads it in status
        failure = quantizeerrors.from_exception(error)
        if not isinstance(error, RunError):
            # The frames without the texts, which could hold content.
            sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
        return _failed(made, failure.detail()), failure.exit_code


def _failed(step: Step, detail: ErrorDetail) -> QuantizeResult:
    return QuantizeResult(outcome="Failed", stage=step.stage, run_digest=step.digest, error=detail)


def ending_line(result: QuantizeResult) -> str:
    """The last line of the pod's log."""
    if result.error is not None:
        return f"failed: {result.error.reason}: {result.error.message}"
    if result.evaluation is not None:
        found = result.evaluation
        return f"succeeded: perplexity {found.perplexity} over {found.tokens} tokens in {found.windows} windows"
    if result.artifact is not None:
        adopted = " (an earlier attempt had written it)" if result.adopted else ""
        return f"succeeded: {result.artifact.uri}, {result.artifact.size_bytes / 1e6:.1f} MB{adopted}"
    return "succeeded: the source and its data are fit to quantize"


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def say(line: str) -> None:
    """Print *line* into the pod's log."""
    print(line, flush=True)  # noqa: T201
