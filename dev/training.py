"""A run, shown while it trains: one line that refreshes, or one line each ten seconds where there is no terminal."""

from __future__ import annotations

import sys
import time

from dev.kubectl import Manifest, condition, describe_pods, get, is_true, items, pod_logs
from dev.steps import StepError

QUIET_SECONDS = 10.0
POLL_SECONDS = 2.0
"""A look starts kubectl three times: more often, it would take a tenth of two processors from the training."""


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
    """What the run does now, in one line: its newest line of progress, or what its object says."""
    status = job.get("status") or {}
    name = (status.get("run") or {}).get("jobName", "")
    if name:
        for pod in items("pods", namespace=namespace, selector=f"batch.kubernetes.io/job-name={name}"):
            lines = pod_logs(pod["metadata"]["name"], namespace=namespace, lines=20)
            told = [line for line in lines if line.startswith(("step ", "eval_loss "))]
            if told:
                return told[-1]
    return status.get("message") or status.get("phase") or "waiting for the operator"


def summary(job: Manifest) -> str:
    """The figures of a complete run in one line."""
    metrics = {m["name"]: m["value"] for m in job["status"].get("metrics", [])}
    return (
        f"held-out loss {metrics.get('eval_loss_before', '?')} -> {metrics.get('eval_loss', '?')}, "
        f"{metrics.get('train_runtime_seconds', '?')} s of training, {job['status']['artifact']['uri']}"
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
