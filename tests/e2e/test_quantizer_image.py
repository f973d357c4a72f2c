"""What the quantizer's library does without our mends: a test that fails when one is no longer needed."""

from __future__ import annotations

import pytest

from tests.e2e.imagejobs import said_in

pytestmark = [pytest.mark.cluster, pytest.mark.long]


def test_awq_of_llm_compressor_still_needs_its_memory_left_alone_without_a_gpu(namespace: str):
    ended = said_in("quantizer", "pinning.py", namespace=namespace)
    assert ended["mended"] is None
    assert ended["unmended"] is not None, "quantizemends.memory_without_cuda is no longer needed: remove it"
    assert "NVIDIA" in ended["unmended"]
