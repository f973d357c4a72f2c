"""Faults that take longer than `make test` may: part of `make test-long`."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import yaml

from dev import demo, training
from dev.install import SYSTEM_NAMESPACE
from dev.kubectl import apply, items, kubectl
from dev.steps import StepError

pytestmark = [pytest.mark.cluster, pytest.mark.long]
KILL_EVERY_SECONDS = 8.0


@contextmanager
def operator_killed_again_and_again() -> Iterator[None]:
    """Kill the operator's pod without grace, every few seconds, until the block ends."""
    over = threading.Event()
    chosen = ("-l", "app.kubernetes.io/component=operator", "--force", "--grace-period=0")

    def kill() -> None:
        while not over.wait(KILL_EVERY_SECONDS):
            kubectl("delete", "pod", *chosen, namespace=SYSTEM_NAMESPACE)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        over.set()
        killer.join()


def test_a_run_whose_operator_is_killed_every_few_seconds_ends_as_one_that_was_left_alone(namespace: str):
    job = copy.deepcopy(yaml.safe_load((demo.EXAMPLE / "finetunejob.yaml").read_text()))
    job["metadata"]["name"] = "killed-operator"
    job["spec"]["training"] |= {"maxSteps": 4, "seed": 7}
    del job["spec"]["publish"], job["spec"]["gate"]
    demo.apply_data(namespace)
    apply(job, namespace=namespace)
    with operator_killed_again_and_again(), suppress(StepError):  # it may not get far while it is being killed
        training.watch("killed-operator", namespace=namespace, seconds=60)
    done = training.watch("killed-operator", namespace=namespace, seconds=300)
    assert (done["status"]["run"]["number"], done["status"]["run"]["attempt"]) == (1, 1)
    jobs = items("jobs", namespace=namespace, selector="largeforge.ai/finetunejob=killed-operator")
    assert sorted(j["metadata"]["name"] for j in jobs) == ["killed-operator-r1-a1", "killed-operator-r1-p1"]
    kubectl("delete", "finetunejob", "killed-operator", "--timeout=30s", namespace=namespace)
