"""QuantizeJobs as tests write them, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dev.install import EXAMPLE
from dev.kubectl import Manifest, condition, get, is_true, items, wait_for
from tests.e2e.story import tell

DATA = "quantize-rows"
SECONDS = 1500
"""For a whole job of two methods: eight pods, of which three have an engine that starts. 226 s on a busy machine."""
HELD_OUT = 24


def rows() -> Manifest:
    """The example's conversations: to calibrate on, and others, to measure on."""
    lines = (EXAMPLE / "train.jsonl").read_text().splitlines(keepends=True)
    data = {"train.jsonl": "".join(lines[HELD_OUT:]), "held-out.jsonl": "".join(lines[:HELD_OUT])}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": DATA}, "data": data}


def gate(**limits: Any) -> Manifest:
    """A quality gate on rows of their own."""
    return {"dataset": {"uri": f"configmap://{DATA}/held-out.jsonl"}} | limits


def quantizejob(name: str, **spec: Any) -> Manifest:
    """SmolLM2 on a CPU, with as little to calibrate on as is taken; *spec* is laid over it."""
    small: Manifest = {
        "source": {"uri": "pvc://models/smollm2-135m-instruct"},
        "methods": ["AWQ", "FP8Dynamic"],
        "scheme": {"groupSize": 64},
        "calibration": {
            "datasets": [{"uri": f"configmap://{DATA}/train.jsonl"}],
            "numSamples": 16,
            "maxLength": 128,
        },
        "qualityGate": gate(maxPerplexityIncreasePercent=8),
        "compute": {
            "gpusPerNode": 0,
            "resources": {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "6Gi"}},
        },
        "output": {"uri": f"pvc://models/{name}"},
    }
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "QuantizeJob",
        "metadata": {"name": name},
        "spec": {key: value for key, value in (small | spec).items() if value is not None},
    }


def until(namespace: str, name: str, what: str, done: Callable[[], bool]) -> Manifest:
    """Wait until *done*; the job then."""
    wait_for(
        f"{what} of QuantizeJob {name}",
        done,
        seconds=SECONDS,
        show=lambda: tell(namespace, name, kind="quantizejob"),
    )
    return get("quantizejob", name, namespace=namespace) or {}


def until_true(namespace: str, name: str, kind: str) -> Manifest:
    """Wait for a condition; a job that ended in the other way is told at once."""
    other = {"Complete": "Failed", "Failed": "Complete"}[kind]

    def seen() -> bool:
        job = get("quantizejob", name, namespace=namespace)
        if is_true(job, other):
            raise AssertionError(f"{condition(job, other)}\n{tell(namespace, name, kind='quantizejob')}")
        return is_true(job, kind)

    return until(namespace, name, f"condition {kind}", seen)


def of_job(namespace: str, name: str) -> list[Manifest]:
    """The batch Jobs of a QuantizeJob."""
    return items("jobs", namespace=namespace, selector=f"largeforge.ai/quantizejob={name}")


def names_of_jobs(namespace: str, name: str) -> set[str]:
    """The names of those Jobs."""
    return {job["metadata"]["name"] for job in of_job(namespace, name)}
