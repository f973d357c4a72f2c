"""In the trainer image: what the tests of FineTuneJob start from, on one claim.

Usage: provide.py ROOT BASE ROWS. ROOT is the claim's mount and is emptied; BASE a model whose tokenizer is taken; ROWS
a file of rows. Afterwards ROOT has a model of two layers that knows nothing (`tiny`), the same with a chat template
that marks what the assistant says (`marked`), and the repositories of the tests' hub (`hub`, in the form of
tests/hub.py); `served` in it is BASE, which an engine can serve.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

TOKEN = "the-token-of-the-tests"
SEED = 20261124
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main(root: Path, base: Path, rows: Path) -> None:
    for old in root.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    make_model(root / "tiny", base)
    shutil.copytree(root / "tiny", root / "marked")
    (root / "marked" / "chat_template.jinja").write_text(MARKED)
    for name in ("open", "private"):
        shutil.copytree(root / "tiny", root / "hub" / "models" / "tests" / name / "main")
    shutil.copytree(base, root / "hub" / "models" / "tests" / "served" / "main")
    (root / "hub" / "models" / "tests" / "private" / "hub.json").write_text(json.dumps({"token": TOKEN}))
    data = root / "hub" / "datasets" / "tests" / "rows" / "main"
    data.mkdir(parents=True)
    shutil.copyfile(rows, data / "train.jsonl")


def make_model(folder: Path, base: Path) -> None:
    """A random Llama of 64 wide layers in FP32: small beside the imports of a training."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
