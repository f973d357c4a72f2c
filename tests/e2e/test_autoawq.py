"""AutoAWQ in its own image, which is archived upstream: `make test-autoawq`, no part of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev import images
from dev.images import storage
from dev.kubectl import Manifest, apply
from tests.e2e.imagejobs import said_in
from tests.e2e.quantizing import gate, quantizejob, until_true

pytestmark = [pytest.mark.cluster, pytest.mark.autoawq]

MENDED, UNMENDED = "awq-mended", "awq-unmended"
DOCKERFILE = """\
ARG BASE
FROM ${BASE}
COPY quantizemends.py /opt/largeforge/largeforge/jobs/quantizemends.py
"""


def job(name: str, image: str) -> Manifest:
    """SmolLM2 on a CPU by AutoAWQ; a model so small loses much in 4 bits, so that the gate is wide."""
    wide = gate(maxPerplexityIncreasePercent=100)
    return quantizejob(name, methods=["AWQ"], engine="AutoAWQ", image=image, qualityGate=wide)


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


def test_the_search_still_destroys_the_weights_of_a_model_on_a_cpu_and_our_mend_prevents_it(quantizing: str):
    changed = said_in("quantizer-autoawq", "search.py", namespace=quantizing)
    assert changed["mended"][0] == 0 < changed["mended"][1]
    assert changed["unmended"][0] > 0, "quantizemends.autoawq_quantizer is no longer needed: remove it"


def test_what_it_writes_is_served_and_passes_a_gate(quantizing: str):
    apply(job(MENDED, images.references()["quantizer-autoawq"]), namespace=quantizing)
    (attempt,) = until_true(quantizing, MENDED, "Complete")["status"]["attempts"]
    assert (attempt["method"], attempt["verdict"]) == ("AWQ", "Passed")
    assert float(attempt["perplexityAfter"]) < 2 * float(attempt["perplexityBefore"])


def test_the_gate_catches_what_the_unmended_library_writes_although_it_ends_with_0(quantizing: str, unmended: str):
    apply(job(UNMENDED, unmended), namespace=quantizing)
    status = until_true(quantizing, UNMENDED, "Failed")["status"]
    (attempt,) = status["attempts"]
    assert (attempt["verdict"], attempt["reason"]) == ("Failed", "GateFailed")
    assert float(attempt["increasePercent"]) > 100
    assert status.get("chosenMethod") is None
