"""What a person would look at when something does not come: objects, pods, events and logs, for failures of tests."""

from __future__ import annotations

import json

from dev.kubectl import get, items, kubectl, pod_logs
from dev.steps import StepError

LINES = 25


def tell(namespace: str, job: str | None = None, *, kind: str = "finetunejob") -> str:
    """All of it, of a FineTuneJob (or another *kind* of job), or of the whole namespace."""
    chosen = f"largeforge.ai/{kind}={job}" if job else ""
    parts = [json.dumps(get(kind, job, namespace=namespace), indent=1)] if job else []
    parts.append(kubectl("get", "jobs,pods", "-o", "wide", "-l", chosen, namespace=namespace))
    events = kubectl("get", "events", "--sort-by=.lastTimestamp", namespace=namespace).splitlines()
    parts += [line for line in events if job is None or job in line][-LINES:]
    for pod in items("pods", namespace=namespace, selector=chosen):
        name = pod["metadata"]["name"]
        parts += [f"--- log of {name}", *pod_logs(name, namespace=namespace, lines=LINES)]
    parts += ["--- log of the operator", *operator_log()]
    return "\n".join(parts)


def operator_log() -> list[str]:
    """Its last lines; what is said where it cannot be read."""
    try:
        return kubectl(
            "logs", "-l", "app.kubernetes.io/component=operator", f"--tail={LINES}", namespace="largeforge-system"
        ).splitlines()
    except StepError as error:
        return [str(error)]
