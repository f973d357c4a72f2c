"""PID 1 of the training container: `python -m largeforge.jobs.launch [CONFIG]`.

Runs torchrun as a child, hands SIGTERM on (`stop.py` says how), and ends with the first failed worker's own exit code,
or with 75 after a SIGTERM where a whole checkpoint is left. Where a GPU's memory did not suffice it starts torchrun
again with half the micro-batch. It needs no torch, so that a termination message is written whatever happens to those
that do.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from largeforge.api.common import ErrorDetail
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact
from largeforge.api.run import CONFIG_DIR, CONFIG_FILE, TERMINATION_LOG, RunConfig, RunResult
from largeforge.jobs import arguments, checkpoints, container, report, stop, verdict

STOP_SECONDS = 105
"""From SIGTERM until what has not ended is killed: a step, and a checkpoint. Below the pod's grace period of 120 s."""
MAX_HALVINGS = 3
"""How often the micro-batch is halved at most; then the job's settings are too far off."""


def main(argv: list[str] | None = None) -> int:
    """Run the configured training; return the exit code."""
    parser = argparse.ArgumentParser(prog="largeforge.jobs.launch", description="Run one attempt of a FineTuneJob.")
    parser.add_argument("config", nargs="?", type=Path, default=Path(CONFIG_DIR) / CONFIG_FILE)
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    options = parser.parse_args(argv)
    os.umask(0o002)
    result, code = launch(options.config)
    print(ending_line(result), flush=True)  # noqa: T201 - the pod's log
    try:
        options.termination_log.write_text(result.message())
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)  # noqa: T201
    return code


def launch(path: Path) -> tuple[RunResult, int]:
    """Run what *path* configures; return the result and the exit code."""
    try:
        config = RunConfig.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        detail = ErrorDetail(reason=Reason.INVALID_CONFIG, message=redact(f"{path}: {_why(error)}"))
        return RunResult(outcome="Failed", error=detail), ExitCode.INVALID_CONFIG
    argv = torchrun(path)
    child = Child()
    halvings = 0
    while True:
        result, code = _run(config, argv, child, halvings)
        if not verdict.wants_smaller_batch(result) or child.stopped:
            return result, code
        if halvings == MAX_HALVINGS or not arguments.can_halve(config, halvings):
            return verdict.explain_halvings(result, halvings), code
        halvings += 1
        smaller = arguments.halved(config, halvings).training
        print(  # noqa: T201 - the pod's log
            f"the GPU's memory did not suffice; again with micro-batch {smaller.per_device_train_batch_size} and"
            f" accumulation {smaller.gradient_accumulation_steps}",
            flush=True,
        )


def _run(config: RunConfig, argv: list[str], child: Child, halvings: int) -> tuple[RunResult, int]:
    kills_before = container.memory_kills()
    with tempfile.TemporaryDirectory(prefix="largeforge-", ignore_cleanup_errors=True) as name:
        state = Path(name)
        outer = {**os.environ, report.BATCH_HALVINGS: str(halvings)}
        status = child.run(argv, environment(config, outer, state=name, cores=container.available()), state)
        kills = container.memory_kills()
        place = report.read_place(state)
        return verdict.judge(
            verdict.Ending(
                run_digest=config.digest,
                status=status,
                stopped=child.stopped,
                seen=report.read_seen(state),
                results=report.read_results(state),
                memory_kills=None if kills is None or kills_before is None else kills - kills_before,
                checkpoint=checkpoints.record(place[0], uri=place[1]) if place is not None else None,
            )
        )


def torchrun(config: Path) -> list[str]:
    """The call of torchrun on our training entry; how many processes comes from `PET_*`, as with any torchrun."""
    return [sys.executable, "-m", "largeforge.jobs.elastic", "-m", "largeforge.jobs.finetune", str(config)]


def environment(config: RunConfig, outer: Mapping[str, str], *, state: str, cores: int) -> dict[str, str]:
    """The environment of torchrun and its workers; what the pod's has set already is kept."""
    ranks = int(outer.get("PET_NPROC_PER_NODE", config.compute.processes))
    one_node = outer.get("PET_NNODES", "1") == "1"
    defaults = {
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": str(ranks),
        # One thread too many for each rank costs more than it brings.
        "OMP_NUM_THREADS": str(max(1, cores // ranks)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "0" if downloads(config) else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "HF_HOME": f"{state}/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{state}/inductor",
        "TRITON_CACHE_DIR": f"{state}/triton",
        "MPLCONFIGDIR": f"{state}/matplotlib",
        "WANDB_DIR": state,
        "WANDB_CACHE_DIR": f"{state}/wandb",
        # Bars of several ranks garble a log, and the progress lines say it all.
        "TQDM_DISABLE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if one_node:
        # A free port of the loopback: no name has to resolve, and no network policy matters.
        defaults |= {
            "PET_RDZV_BACKEND": "c10d",
            "PET_RDZV_ENDPOINT": "127.0.0.1:0",
            "PET_LOCAL_ADDR": "127.0.0.1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
    return {**defaults, **outer, report.STATE_DIR: state}


def downloads(config: RunConfig) -> bool:
    """Whether the ranks download themselves: from the hub, and without a cache that preflight has filled."""
    sources = [config.base.path, *(source.path for source in config.datasets)]
    if config.eval_dataset is not None:
        sources.append(config.eval_dataset.path)
    return config.cache_path is None and None in sources


def ending_line(result: RunResult) -> str:
    """The last line of the pod's log."""
    if result.error is not None:
        return f"failed: {result.error.reason}: {result.error.message}"
    adopted = " (an earlier attempt had written it)" if result.adopted else ""
    return f"succeeded: {result.artifact.uri if result.artifact is not None else ''}{adopted}"


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in entry['loc'])}: {entry['msg']}" for entry in error.errors()[:5]
        )
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class Child:
    """One child process at a time, in a process group of its own; all orphans are reaped while it runs."""

    def __init__(self) -> None:
        self.stopped = False
        self._pid: int | None = None
        self._state: Path | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)

    def run(self, argv: list[str], environment: Mapping[str, str], state: Path) -> int:
        """Run *argv* to its end; return its exit status, negative for a signal. The ranks look into *state*."""
        self._state = state
        self._pid = os.posix_spawn(argv[0], argv, dict(environment), setpgroup=0)
        if self.stopped:  # the signal came before there was anyone to hand it to
            self._hand_on()
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._pid:
                signal.alarm(0)
                self._pid = None
                self._kill_group(pid)
                return os.waitstatus_to_exitcode(status)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        self._hand_on()

    def _hand_on(self) -> None:
        if self._pid is None or self._state is None:
            return
        signal.alarm(STOP_SECONDS)
        if stop.listening(self._state):
            stop.request(self._state)
        else:
            os.kill(self._pid, signal.SIGTERM)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        if self._pid is not None:
            self._kill_group(self._pid)

    @staticmethod
    def _kill_group(group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    sys.exit(main())
