"""In the trainer image: the loss of BASE over ROWS, of what the assistant says and of all, as the means of the rows'.

Usage: losses.py BASE ROWS. The last line has the two numbers. What the assistant says is found by its tokens, from the
end of the line that names it to the end of its turn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ANSWER, END = "<|im_start|>assistant\n", "<|im_end|>"


def main(base: str, rows: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    answer, end = tokenizer.encode(ANSWER), tokenizer.convert_tokens_to_ids(END)
    said, whole = [], []
    for line in Path(rows).read_text().splitlines():
        ids = tokenizer.apply_chat_template(json.loads(line)["messages"], return_dict=True)["input_ids"]
        first = next(i for i in range(len(ids)) if ids[i : i + len(answer)] == answer) + len(answer)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        said.append(losses[first - 1 : ids.index(end, first)].mean().item())
        whole.append(losses.mean().item())
    print(sum(said) / len(said), sum(whole) / len(whole))  # noqa: T201 - read from the pod's log


if __name__ == "__main__":
    main(*sys.argv[1:])
