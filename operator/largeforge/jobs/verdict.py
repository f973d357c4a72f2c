"""How a run ended, judged from what its processes left behind. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import CheckpointRecord
from largeforge.api.names import ExitCode, Reason
from largeforge.api.run import RunResult
from largeforge.jobs.errors import MEMORY_REMEDY
from largeforge.jobs.report import Failure, Seen

_USER_ERRORS = (ExitCode.INVALID_CONFIG, ExitCode.INVALID_DATA)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the launcher saw."""

    run_digest: str
    status: int
    """torchrun's own exit status, negative for a signal."""
    stopped: bool
    """Whether SIGTERM came."""
    seen: Seen
    results: Mapping[int, RunResult]
    memory_kills: int | None
    """Processes that the kernel killed for memory meanwhile; None where the control group does not say."""
    checkpoint: CheckpointRecord | None = None
    """The newest whole checkpoint of the run."""


def judge(ending: Ending) -> tuple[RunResult, int]:
    """The result for the termination message, and the exit code.

    An artifact that rank 0 has renamed into place is whole, whatever became of the processes afterwards. A run that was
    stopped is not a failed one, but only what left a whole checkpoint ends as such (75): where the next attempt begins
    anew, it is for the Job's condition to say that the pod was disrupted. Else the first worker that failed decides.
    """
    first = ending.results.get(0)
    if first is not None and first.outcome == "Succeeded":
        return first, 0
    result, code = _failure(ending)
    return result.model_copy(update={"checkpoint": ending.checkpoint}), code


def wants_smaller_batch(result: RunResult) -> bool:
    """Whether a GPU's memory did not suffice."""
    return result.error is not None and result.error.reason == Reason.OUT_OF_GPU_MEMORY


def explain_halvings(result: RunResult, times: int) -> RunResult:
    """*result* of a run out of GPU memory, with the words for what was tried before."""
    if result.error is None or not times:
        return result
    message = f"with the micro-batch halved {times} times still: {result.error.message}"
    return result.model_copy(update={"error": result.error.model_copy(update={"message": message})})


def _failure(ending: Ending) -> tuple[RunResult, int]:
    if ending.stopped:
        if ending.checkpoint is not None:
            text = f"stopped by SIGTERM; the next attempt goes on from step {ending.checkpoint.step} and is not counted"
            return _failed(ending, Reason.DISRUPTED, text), ExitCode.STOPPED
        text = "stopped by SIGTERM before there was a checkpoint; the next attempt begins anew"
        return _failed(ending, Reason.DISRUPTED, text), 128 + signal.SIGTERM
    short = next((r for _, r in sorted(ending.results.items()) if wants_smaller_batch(r)), None)
    if short is not None:  # the others then failed for want of it
        return short, 1
    failure = root_cause(ending.seen.failures)
    if failure is None:
        return _without_failure(ending)
    code = failure.exit_code if failure.exit_code > 0 else 128 - failure.exit_code
    result = ending.results.get(failure.rank) or next(iter(ending.results.values()), None)
    if failure.exit_code > 0 and result is not None:
        return result, code
    return _killed(ending, f"rank {failure.rank}", failure.exit_code), code


def root_cause(failures: Sequence[Failure]) -> Failure | None:
    """The failure that the others follow from.

    A rank that says that the user's input is wrong knows; one that was killed says nothing, and the ranks that it left
    alone then fail in their next exchange, so it goes before them. Else the earliest, and of those the lowest rank.
    """

    def order(failure: Failure) -> tuple[int, int, int]:
        if failure.exit_code in _USER_ERRORS:
            weight = 0
        elif failure.exit_code == -signal.SIGKILL:
            weight = 1
        else:
            weight = 2
        return weight, failure.timestamp, failure.rank

    return min(failures, key=order, default=None)


def _without_failure(ending: Ending) -> tuple[RunResult, int]:
    if ending.status < 0:
        return _killed(ending, "torchrun", ending.status), 128 - ending.status
    if ending.seen.error:
        text = f"torchrun: {ending.seen.error}"
    elif ending.status == 0:
        text = "all processes ended with 0, but rank 0 left no result; see the pod's log"
    else:
        text = f"torchrun ended with {ending.status} before a worker did; see the pod's log"
    return _failed(ending, Reason.TRAINING_FAILED, text), ending.status or 1


def _killed(ending: Ending, who: str, code: int) -> RunResult:
    if code > 0:
        return _failed(ending, Reason.TRAINING_FAILED, f"{who} ended with {code} and left no result; see the pod's log")
    if code == -signal.SIGKILL and ending.memory_kills != 0:
        seen = "for memory" if ending.memory_kills else "by SIGKILL, as the kernel does where memory is short"
        return _failed(ending, Reason.OUT_OF_MEMORY, f"{who} was killed {seen}; {MEMORY_REMEDY}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return _failed(ending, Reason.TRAINING_FAILED, f"{who} was killed by {name}; see the pod's log")


def _failed(ending: Ending, reason: str, text: str) -> RunResult:
    return RunResult(
        outcome="Failed",
        run_digest=ending.run_digest,
        error=ErrorDetail(reason=reason, message=text),
    )
