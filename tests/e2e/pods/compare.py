"""In the trainer image: the largest difference of the logits of BASE plus ADAPTER and of MERGED, over two sentences.

Usage: compare.py BASE ADAPTER MERGED. The last line is the number.
"""

from __future__ import annotations

import sys


def main(base: str, adapter: str, merged: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(["What comes after 7?", "The sea is never still."], return_tensors="pt", padding=True)
    apart = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    whole = AutoModelForCausalLM.from_pretrained(merged).eval()
    with torch.no_grad():
        difference = (apart(**ids).logits - whole(**ids).logits).abs().max().item()
    print(difference)  # noqa: T201 - read from the pod's log


if __name__ == "__main__":
    main(*sys.argv[1:])
