"""Faults of the quantization libraries, each worked around in one place.

`tests/e2e/test_quantizer_image.py` runs the libraries without the mends: it fails when one is no longer needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_without_cuda() -> Iterator[None]:
    """llm-compressor 0.14.0.1: AWQ pins its cache in memory for a GPU also where there is none, and torch raises."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.cuda.is_available():
        yield
        return
    upstream = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *_args, **_more: None
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = upstream
