"""A run, shown while it trains: one line that refreshes, or one line each ten seconds where there is no terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence

from dev.kubectl import Manifest, condition, describe_pods, get, is_true, items, pod_logs
from dev.steps import StepError

QUIET_SECONDS = 10.0
POLL_SECONDS = 2.0
"""A look starts kubectl three times: more often, it would take a tenth of two processors from the training."""
STEP = re.compile(r"step (\d+)/(\d+) ")


def watch(job: str, *, namespace: str, seconds: float) -> Manifest:
    """Follow the FineTuneJob *job* to its end; a `StepError` with its own words where it fails or takes too long."""
    deadline = time.monotonic() + seconds
    screen = Screen()
    while True:
        found = get("finetunejob", job, namespace=namespace) or {}
        if is_true(found, "Complete"):
            screen.close("complete: " + summary(found))
            return found
        failed = condition(found, "Failed")
        if failed.get("status") == "True":
            raise StepError(
                f"FineTuneJob {job} failed, {failed.get('reason')}: {failed.get('message')}",
                remedy=f"kubectl -n {namespace} describe finetunejob {job}; docs/troubleshooting.md",
            )
        if time.monotonic() > deadline:
            raise StepError(
                f"FineTuneJob {job} is not complete after {seconds:.0f} s\n{describe_pods(namespace)}",
                remedy=f"kubectl -n {namespace} describe finetunejob {job}",
            )
        screen.show(progress(found, namespace=namespace))
        time.sleep(POLL_SECONDS)


def progress(job: Manifest, *, namespace: str) -> str:
    """What the run does now, in one line: the newest line of its pod's log, or what its object says."""
    status = job.get("status") or {}
    run = status.get("run") or {}
    if run.get("jobName"):
        for pod in items("pods", namespace=namespace, selector=f"batch.kubernetes.io/job-name={run['jobName']}"):
            told = newest(pod_logs(pod["metadata"]["name"], namespace=namespace, lines=20), stage=run.get("stage", ""))
            if told:
                return told
    return status.get("message") or status.get("phase") or "waiting for the operator"


def newest(lines: Sequence[str], *, stage: str) -> str:
    """What the log of a pod says of how far it is: any line of preflight, steps and held-out losses of training."""
    if stage == "Preflight":
        return next((f"preflight: {line}" for line in reversed(lines) if line), "")
    told = next((line for line in reversed(lines) if line.startswith(("step ", "eval_loss "))), "")
    found = STEP.match(told)
    return f"training, {100 * int(found[1]) // int(found[2])}%: {told}" if found else told


def summary(job: Manifest) -> str:
    """The figures of a complete run in one line."""
    status = job["status"]
    metrics = {m["name"]: m["value"] for m in status.get("metrics", [])}
    gate = f", gate {status['gate']['verdict'].lower()}" if status.get("gate") else ""
    return (
        f"held-out loss {metrics.get('eval_loss_before', '?')} -> {metrics.get('eval_loss', '?')}{gate}, "
        f"{metrics.get('train_seconds', '?')} s of training, {status['artifact']['uri']}"
    )


class Screen:
    """One line, refreshed in a terminal; elsewhere printed when it changed and ten seconds have passed."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._started = time.monotonic()
        self._printed = 0.0
        self._last = ""

    def show(self, text: str) -> None:
        """Show *text* with the time since the start."""
        line = f"    {time.monotonic() - self._started:5.0f} s  {text}"
        if self._terminal:
            sys.stdout.write(f"\r\x1b[2K{line[:110]}")
            sys.stdout.flush()
        elif text != self._last and time.monotonic() - self._printed >= QUIET_SECONDS:
            print(line, flush=True)
            self._printed, self._last = time.monotonic(), text

    def close(self, text: str) -> None:
        """Leave *text* behind as the last word."""
        print(("\r\x1b[2K" if self._terminal else "") + "    " + text, flush=True)
