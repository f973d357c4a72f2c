"""In the quantizer-autoawq image: whether AutoAWQ's search leaves the weights as they were, with our mend and without.

The last line is JSON: for both, in how many of how many searches the weights were others afterwards.
"""

from __future__ import annotations

import json
from typing import Any


def main() -> None:
    from awq.quantize.quantizer import AwqQuantizer

    from largeforge.jobs import quantizemends

    found = {"mended": searched(quantizemends.autoawq_quantizer()), "unmended": searched(AwqQuantizer)}
    print(json.dumps(found))  # noqa: T201 - read from the pod's log


def searched(kind: Any) -> list[int]:
    """Quantize a tiny model with the class *kind*; the searches that changed weights, and all of them."""
    import torch
    from awq.models.llama import LlamaAWQForCausalLM
    from transformers import LlamaConfig, LlamaForCausalLM

    changed: list[bool] = []

    class Watched(kind):
        def _compute_best_scale(self, x: Any, w_mean: Any, x_mean: Any, module: Any, *rest: Any, **more: Any) -> Any:
            before = {name: value.clone() for name, value in module.state_dict().items()}
            scales = super()._compute_best_scale(x, w_mean, x_mean, module, *rest, **more)
            changed.append(any(not torch.equal(value, before[name]) for name, value in module.state_dict().items()))
            return scales

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).eval()
    LlamaAWQForCausalLM(model, "llama", False, config, None, None).quantize(
        quant_config={"zero_point": True, "q_group_size": 64, "w_bit": 4, "version": "GEMM"},
        calib_data=torch.randint(0, 256, (8, 64)).tolist(),
        max_calib_seq_len=64,
        quantizer_cls=Watched,
    )
    return [sum(changed), len(changed)]


if __name__ == "__main__":
    main()
