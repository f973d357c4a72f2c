"""AutoAWQ in its own image, which is archived upstream: `make test-autoawq`, no part of `make test`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev import images
from dev.images import storage
from dev.install import EXAMPLE
from dev.kubectl import Manifest, apply, get, is_true, kubectl, wait_for
from tests.e2e.imagejobs import said_in
from tests.e2e.story import tell

pytestmark = [pytest.mark.cluster, pytest.mark.autoawq]

MENDED, UNMENDED = "awq-mended", "awq-unmended"
DATA = "autoawq-rows"
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY quantizemends.py /opt/largeforge/largeforge/jobs/quantizemends.py
"""
SECONDS = 1800
"""Four pods, of which two have an engine that starts; the search takes a minute of two free cores."""


def job(name: str, image: str) -> Manifest:
    """SmolLM2 on a CPU by AutoAWQ; a model so small loses much in 4 bits, so that the gate is wide."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "QuantizeJob",
        "metadata": {"name": name},
        "spec": {
            "source": {"uri": "pvc://models/smollm2-135m-instruct"},
            "methods": ["AWQ"],
            "engine": "AutoAWQ",
            "scheme": {"groupSize": 64},
            "calibration": {
                "datasets": [{"uri": f"configmap://{DATA}/train.jsonl"}],
                "numSamples": 16,
                "maxLength": 128,
            },
            "qualityGate": {"maxPerplexityIncreasePercent": 100},
            "compute": {"gpusPerNode": 0},
            "image": image,
            "output": {"uri": f"pvc://models/{name}"},
        },
    }


@pytest.fixture(scope="module")
def place(namespace: str) -> Iterator[str]:
    data = {"train.jsonl": (EXAMPLE / "train.jsonl").read_text()}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": DATA}, "data": data}, namespace=namespace)
    yield namespace
    kubectl("delete", "quantizejobs", MENDED, UNMENDED, "--ignore-not-found", "--wait=false", namespace=namespace)


@pytest.fixture(scope="module")
def unmended(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image with upstream's own search: its reference, in the cluster."""
    context: Path = tmp_path_factory.mktemp("unmended")
    mends = Path("operator/largeforge/jobs/quantizemends.py").read_text()
    (context / "quantizemends.py").write_text(mends.replace("    return Quantizer\n", "    return AwqQuantizer\n"))
    (context / "Dockerfile").write_text(DOCKERFILE)
    base = images.references()["quantizer-autoawq"]
    reference = f"localhost/largeforge-unmended:{base.rpartition(':')[2]}"
    storage.build_image(reference, dockerfile=context / "Dockerfile", context=context, base=base)
    images.load([reference])
    return reference


def ended(name: str, namespace: str) -> dict[str, Any]:
    """The status of the job called *name* when it is over."""

    def over() -> bool:
        found = get("quantizejob", name, namespace=namespace) or {}
        return is_true(found, "Complete") or is_true(found, "Failed")

    wait_for(f"the end of {name}", over, seconds=SECONDS, show=lambda: tell(namespace, name, kind="quantizejob"))
    status: dict[str, Any] = (get("quantizejob", name, namespace=namespace) or {})["status"]
    return status


def test_the_search_still_destroys_the_weights_of_a_model_on_a_cpu_and_our_mend_prevents_it(place: str):
    changed = json.loads(said_in("quantizer-autoawq", "search.py", namespace=place))
    assert changed["mended"][0] == 0 < changed["mended"][1]
    assert changed["unmended"][0] > 0, "quantizemends.autoawq_quantizer is no longer needed: remove it"


def test_what_it_writes_is_served_and_passes_a_gate(place: str):
    apply(job(MENDED, images.references()["quantizer-autoawq"]), namespace=place)
    (attempt,) = ended(MENDED, place)["attempts"]
    assert (attempt["method"], attempt["verdict"]) == ("AWQ", "Passed")
    assert float(attempt["perplexityAfter"]) < 2 * float(attempt["perplexityBefore"])


def test_the_gate_catches_what_the_unmended_library_writes_although_it_ends_with_0(place: str, unmended: str):
    apply(job(UNMENDED, unmended), namespace=place)
    status = ended(UNMENDED, place)
    (attempt,) = status["attempts"]
    assert (attempt["verdict"], attempt["reason"]) == ("Failed", "GateFailed")
    assert float(attempt["increasePercent"]) > 100
    assert status.get("chosenMethod") is None
