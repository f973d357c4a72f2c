"""kubectl and helm against the cluster that is up, and the few waits that the demo and the tests share."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dev import cluster
from dev.cluster.programs import program
from dev.steps import StepError, run

Manifest = dict[str, Any]
POLL_SECONDS = 1.0


def environment() -> dict[str, str]:
    """What kubectl and helm see: the cluster's kubeconfig, and none of the caller's proxies."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "KUBECONFIG": str(cluster.kubeconfig())}


def kubectl(*arguments: str | Path, stdin: str | None = None, namespace: str | None = None) -> str:
    """What kubectl prints; a `StepError` with its own words where it fails."""
    place = ["--namespace", namespace] if namespace else []
    return run(program("kubectl"), *place, *arguments, env=environment(), stdin=stdin)


def helm(*arguments: str | Path) -> str:
    """What helm prints; a `StepError` with its own words where it fails."""
    return run(
        program("helm"),
        *arguments,
        env=environment(),
        remedy='see what waits: kubectl get pods,jobs --all-namespaces (after eval "$(make -s demo-env)")',
    )


def apply(*manifests: Manifest, namespace: str | None = None) -> None:
    """Server-side apply of *manifests*."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text, namespace=namespace)


def get(kind: str, name: str, *, namespace: str | None = None) -> Manifest | None:
    """The object, or None where it does not exist."""
    text = kubectl("get", kind, name, "-o", "json", "--ignore-not-found", namespace=namespace)
    return dict(json.loads(text)) if text.strip() else None


def items(kind: str, *, namespace: str | None = None, selector: str = "") -> list[Manifest]:
    """The objects of a kind."""
    chosen = ["--selector", selector] if selector else []
    found: list[Manifest] = json.loads(kubectl("get", kind, "-o", "json", *chosen, namespace=namespace))["items"]
    return found


def condition(manifest: Manifest | None, kind: str) -> Manifest:
    """The condition of type *kind*, or an empty one."""
    conditions: Sequence[Manifest] = ((manifest or {}).get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), {})


def is_true(manifest: Manifest | None, kind: str) -> bool:
    """Whether the condition of type *kind* is True for the object's newest spec."""
    if manifest is None:
        return False
    found = condition(manifest, kind)
    fresh = found.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0)
    return found.get("status") == "True" and fresh


def wait_for(what: str, done: Callable[[], bool], *, seconds: float, show: Callable[[], str]) -> None:
    """Wait until *done*; where *seconds* pass first, a `StepError` with what *show* says then."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise StepError(f"{what} did not come within {seconds:.0f} s:\n{show()}", remedy="docs/troubleshooting.md")
        time.sleep(POLL_SECONDS)


def wait_true(kind: str, name: str, expected: str, *, namespace: str, seconds: float) -> Manifest:
    """Wait until a condition of an object is True; the object then. On time-out the object is printed."""

    def newest() -> Manifest | None:
        return get(kind, name, namespace=namespace)

    wait_for(
        f"{expected} of {kind} {name}",
        lambda: is_true(newest(), expected),
        seconds=seconds,
        show=lambda: json.dumps(newest(), indent=2) + "\n" + describe_pods(namespace),
    )
    return newest() or {}


def describe_pods(namespace: str) -> str:
    """The namespace's pods and newest events, for messages."""
    pods = kubectl("get", "pods", "-o", "wide", namespace=namespace)
    events = kubectl("get", "events", "--sort-by=.lastTimestamp", namespace=namespace)
    return pods + "\n".join(events.splitlines()[-15:])


def pod_logs(pod: str, *, namespace: str, lines: int) -> list[str]:
    """The last lines of a pod's log; none where it has not started."""
    done = subprocess.run(
        [program("kubectl"), "--namespace", namespace, "logs", pod, f"--tail={lines}"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()
