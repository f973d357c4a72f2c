"""Faults of the quantization libraries, each worked around in one place.

`tests/e2e/test_quantizer_image.py` and `tests/e2e/test_autoawq.py` run the libraries without the mends: they fail when
one is no longer needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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


def autoawq_quantizer() -> Any:
    """AutoAWQ 0.2.9: on a CPU its search destroys the weights that it searches on, and it ends with 0.

    It keeps what it will restore as `v.cpu()`, which on a CPU is the weight itself. Here it is shown copies.
    """
    from awq.quantize.quantizer import AwqQuantizer

    class Quantizer(AwqQuantizer):  # type: ignore[misc]
        def _compute_best_scale(
            self, x: Any, w_mean: Any, x_mean: Any, module2inspect: Any, *rest: Any, **more: Any
        ) -> Any:
            with copied_state(module2inspect):
                return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest, **more)

    return Quantizer


@contextmanager
def copied_state(module: Any) -> Iterator[None]:
    """Let `module.state_dict()` give copies."""
    whole = module.state_dict
    module.state_dict = lambda *args, **more: {name: value.clone() for name, value in whole(*args, **more).items()}
    try:
        yield
    finally:
        del module.state_dict
