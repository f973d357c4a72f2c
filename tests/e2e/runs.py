"""FineTuneJobs of the tests: one that is small in everything, changes to it, and what became of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from dev.install import SYSTEM_NAMESPACE
from dev.kubectl import POLL_SECONDS, Manifest, apply, condition, get, is_true, items, kubectl, pod_logs, wait_for
from dev.steps import StepError
from dev.testing import RUNS_NAMESPACE
from tests.e2e.ground import CLAIM, ROWS
from tests.e2e.story import tell

SECONDS = 240
"""Without a move of a run; twenty are usual for a whole one on a quiet machine."""
Moves = tuple[Any, ...]
_STEP = re.compile(r"^step (\d+)/\d+ ", re.MULTILINE)


def finetunejob(name: str, **changes: Any) -> Manifest:
    """A job of a few seconds on one rank; *changes* are laid over its spec, maps into maps, None removes."""
    spec: Manifest = {
        "method": "SFT",
        "base": {"uri": f"pvc://{CLAIM}/tiny"},
        "peft": {"r": 4, "loraDropout": 0},
        "datasets": [{"uri": ROWS}],
        "evalSplitRatio": 0.1,
        "training": {"maxSteps": 3, "learningRate": 0.01, "globalBatchSize": 4, "maxLength": 64},
        "compute": {
            "gpusPerNode": 0,
            "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        },
        "output": {"uri": f"pvc://{CLAIM}/out"},
    }
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": without_none(laid_over(spec, changes)),
    }


def longer(**changes: Any) -> Manifest:
    """Changes for a run with a middle: about half a second or one for each of 30 steps, a checkpoint every five."""
    training = {"maxSteps": 30, "globalBatchSize": None, "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 16}
    return laid_over({"training": training, "checkpoint": {"everySteps": 5}}, changes)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Manifest:
    """*above* laid over *below*, maps into maps."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = laid_over(known, value) if isinstance(value, Mapping) and isinstance(known, Mapping) else value
    return merged


def without_none(value: Mapping[str, Any]) -> Manifest:
    """*value* without the keys that are None, in the maps in it too."""
    kept = {key: one for key, one in value.items() if one is not None}
    return {key: without_none(one) if isinstance(one, Mapping) else one for key, one in kept.items()}


def begin(name: str, **changes: Any) -> None:
    """Apply a job."""
    apply(finetunejob(name, **changes), namespace=RUNS_NAMESPACE)


def patch(name: str, **spec: Any) -> None:
    """Merge *spec* into the job's."""
    kubectl("patch", "finetunejob", name, "--type=merge", "-p", json.dumps({"spec": spec}), namespace=RUNS_NAMESPACE)


def look(name: str) -> Manifest:
    """The job now."""
    return get("finetunejob", name, namespace=RUNS_NAMESPACE) or {}


def until(name: str, what: str, seen: Callable[[Manifest], bool], *, seconds: float = SECONDS) -> Manifest:
    """Wait until the job is as *seen* wants it; the job then. All that is known of it is told where it fails.

    *seconds* count from its last move: a run on a busy node may take as long as it goes on, and at most thrice that.
    """
    began = moved = time.monotonic()
    moves: Moves | None = None
    while not seen(job := look(name)):
        now = time.monotonic()
        if (newest := moves_of(job)) != moves:
            moves, moved = newest, now
        if now - moved > seconds or now - began > 3 * seconds:
            known = f"it moved {now - moved:.0f} s ago:\n{tell(RUNS_NAMESPACE, name)}"
            raise StepError(
                f"{what} of FineTuneJob {name} did not come within {now - began:.0f} s; {known}",
                remedy="docs/troubleshooting.md",
            )
        time.sleep(POLL_SECONDS)
    return job


def moves_of(job: Manifest) -> Moves:
    """What changes of a run as long as it goes on."""
    status = job.get("status") or {}
    run, progress = status.get("run") or {}, status.get("progress") or {}
    return run.get("number"), run.get("stage"), run.get("attempt"), progress.get("step"), status.get("phase")


def until_true(name: str, kind: str, *, seconds: float = SECONDS) -> Manifest:
    """Wait for a condition; a job that ended in the other way is told at once."""
    other = {"Complete": "Failed", "Failed": "Complete"}.get(kind)

    def seen(job: Manifest) -> bool:
        if other is not None and is_true(job, other):
            raise AssertionError(f"{name} is {other}, not {kind}:\n{tell(RUNS_NAMESPACE, name)}")
        return is_true(job, kind)

    return until(name, f"condition {kind}", seen, seconds=seconds)


def until_reason(name: str, kind: str, reason: str, *, seconds: float = SECONDS) -> str:
    """Wait until a condition has a reason; its message."""
    job = until(name, f"{kind} {reason}", lambda job: condition(job, kind).get("reason") == reason, seconds=seconds)
    return str(condition(job, kind)["message"])


def until_step(name: str, step: int) -> str:
    """Wait until the log of a running training pod has come to *step*; the pod's name."""
    found: list[str] = []

    def reached() -> bool:
        for pod in pods(name, stage="Training"):
            if pod["status"].get("phase") != "Running" or "deletionTimestamp" in pod["metadata"]:
                continue
            lines = pod_logs(pod["metadata"]["name"], namespace=RUNS_NAMESPACE, lines=50)
            if max(map(int, _STEP.findall("\n".join(lines))), default=0) >= step:
                found.append(pod["metadata"]["name"])
                return True
        return False

    wait_for(f"step {step} of FineTuneJob {name}", reached, seconds=SECONDS, show=lambda: tell(RUNS_NAMESPACE, name))
    return found[-1]


def log(name: str) -> str:
    """The whole log of the newest attempt."""
    return kubectl("logs", f"job/{look(name)['status']['run']['jobName']}", namespace=RUNS_NAMESPACE)


def _selector(name: str, stage: str | None) -> str:
    return f"largeforge.ai/finetunejob={name}" + (f",largeforge.ai/stage={stage}" if stage else "")


def jobs(name: str, *, stage: str | None = None) -> list[Manifest]:
    """The Jobs of a FineTuneJob, of one stage or all."""
    return items("jobs", namespace=RUNS_NAMESPACE, selector=_selector(name, stage))


def pods(name: str, *, stage: str | None = None) -> list[Manifest]:
    """The pods of a FineTuneJob."""
    return items("pods", namespace=RUNS_NAMESPACE, selector=_selector(name, stage))


def reasons_of_events(name: str) -> list[str]:
    """The reasons of the job's events, the oldest first; an earlier job of the same name is another one."""
    uid = look(name)["metadata"]["uid"]
    own = [e for e in items("events", namespace=RUNS_NAMESPACE) if e["involvedObject"].get("uid") == uid]
    return [e["reason"] for e in sorted(own, key=lambda e: e["metadata"]["creationTimestamp"])]


def metrics(job: Manifest) -> dict[str, float]:
    """What the run measured."""
    return {m["name"]: float(m["value"]) for m in job["status"]["metrics"]}


def remove(name: str) -> None:
    """Delete a job and all that belongs to it; what it wrote stays."""
    kubectl("delete", "finetunejob", name, "--timeout=60s", namespace=RUNS_NAMESPACE)


def kill_operator() -> None:
    """As a node's end would."""
    chosen = ("-l", "app.kubernetes.io/component=operator", "--force", "--grace-period=0")
    kubectl("delete", "pod", *chosen, namespace=SYSTEM_NAMESPACE)
