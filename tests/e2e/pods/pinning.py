"""In the quantizer image: whether llm-compressor's AWQ works on a CPU, with our mend and without.

The last line is JSON: for both, the error's first words, or null.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any


def main() -> None:
    from largeforge.jobs import quantizemends

    ended = {"mended": tried(quantizemends.memory_without_cuda()), "unmended": tried(contextlib.nullcontext())}
    print(json.dumps(ended))  # noqa: T201 - read from the pod's log


def tried(mend: Any) -> str | None:
    """Run AWQ on a tiny model within *mend*; the error, or None."""
    import torch
    from llmcompressor import oneshot
    from transformers import LlamaConfig, LlamaForCausalLM

    from largeforge.api.quantize import MethodSettings
    from largeforge.jobs import quantizerecipes, quantizing

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    settings = MethodSettings(
        field="spec.methods[0]", method="AWQ", engine="LLMCompressor", group_size=64, symmetric=False,
        ignore=["lm_head"], digest="",
    )  # fmt: skip
    samples = torch.randint(0, 256, (4, 32)).tolist()
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.config._name_or_path = written(model)
    try:
        with mend:
            oneshot(
                model=model,
                processor=object(),
                recipe=quantizerecipes.recipe(settings),
                dataset=quantizing.batches(samples),
            )
    except Exception as error:  # noqa: BLE001 - which one it is, is the answer
        return f"{type(error).__name__}: {error}"[:200]
    return None


def written(model: Any) -> str:
    """A folder with *model*: the library looks at the configuration there."""
    import tempfile

    folder = tempfile.mkdtemp()
    model.config.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
