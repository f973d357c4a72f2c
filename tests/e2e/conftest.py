"""The example, applied to the real cluster once; every test looks at what came of it as a user would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from dev import demo, training
from dev.install import EXAMPLE, api_key, base_url
from dev.kubectl import apply, kubectl, wait_true
from dev.testing import E2E_NAMESPACE, RUNS_NAMESPACE
from tests.e2e import ground as grounds
from tests.e2e.chain import Chain
from tests.e2e.quantizing import rows

LAST = "test_refusals.py"
"""Looks back at all the others."""
KINDS = "experts,finetunejobs,quantizejobs,inferenceservices"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name == LAST)


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    kubectl("delete", KINDS, "--all", "--wait", "--timeout=60s", namespace=E2E_NAMESPACE)
    yield E2E_NAMESPACE
    kubectl("delete", KINDS, "--all", "--wait=false", namespace=E2E_NAMESPACE)


@pytest.fixture(scope="session")
def chain(namespace: str) -> Iterator[Chain]:
    """The demo's path, without its words."""
    demo.apply_example(namespace)
    job = training.watch(demo.JOB, namespace=namespace, seconds=600)
    demo.await_experts(namespace)
    with OpenAI(base_url=base_url(namespace), api_key=api_key(namespace), max_retries=0, timeout=60) as client:
        yield Chain(job, client)


@pytest.fixture(scope="session")
def client(namespace: str) -> Iterator[OpenAI]:
    """Of the example the model and its service alone, which answer without any training."""
    for name in ("inferenceservice.yaml", "expert-fallback.yaml"):
        kubectl("apply", "-f", EXAMPLE / name, namespace=namespace)
    wait_true("expert", demo.FALLBACK, "Ready", namespace=namespace, seconds=600)
    with OpenAI(base_url=base_url(namespace), api_key=api_key(namespace), max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def ground() -> Iterator[None]:
    """What the tests of FineTuneJob stand on."""
    grounds.provide()
    yield
    kubectl("delete", "finetunejobs,experts", "--all", "--wait=false", namespace=RUNS_NAMESPACE)
    kubectl("delete", "deployment", "hub", "--ignore-not-found", "--wait=false", namespace=RUNS_NAMESPACE)


@pytest.fixture(scope="module")
def quantizing(namespace: str) -> Iterator[str]:
    """The namespace with the model, rows for QuantizeJobs, and none of those of another module."""
    apply(rows(), namespace=namespace)
    yield namespace
    kubectl("delete", "quantizejobs", "--all", "--wait=false", namespace=namespace)
