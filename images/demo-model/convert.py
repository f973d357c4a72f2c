# ruff: noqa: INP001, S106 - a script by itself; the tokens are no secrets
"""
Turn the GGUF of SmolLM2-135M-Instruct into a directory that transformers and vLLM load: safetensors in bfloat16.

Usage: convert.py MODEL.gguf DIRECTORY

transformers de-quantizes the weights, but it refuses to save a model that came from a GGUF: they move into a fresh
model. The tokenizer is built here from the GGUF's own tables, because its pre-tokenizer (one token for each digit) has
only a name there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CONTROL = 3
"""The GGUF's type of tokens that never come from text, such as `<|im_end|>`."""


def main(source: Path, target: Path) -> None:
    """Write the directory *target* from the file *source*."""
    fields = read_fields(source)
    tokenizer = build_tokenizer(fields)
    tokenizer.save_pretrained(target)
    save_model(source, target, tokenizer)


def read_fields(source: Path) -> dict[str, Any]:
    """The metadata of the GGUF, of which the tokenizer's tables are a part."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(source).fields.items()}


def build_tokenizer(fields: dict[str, Any]) -> Any:
    """The byte-level BPE tokenizer of SmolLM2 with its chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if fields["tokenizer.ggml.model"] != "gpt2" or fields["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("this GGUF's tokenizer is not SmolLM2's")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        chat_template=fields["tokenizer.chat_template"],
    )


def save_model(source: Path, target: Path, tokenizer: Any) -> None:
    """The weights in bfloat16, with a configuration whose special tokens are the tokenizer's."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    old = loaded.config
    ids = {name: getattr(tokenizer, f"{name}_id") for name in ("bos_token", "eos_token", "pad_token")}
    numbers = {f"{name}_id": value for name, value in ids.items()}
    config = LlamaConfig(
        vocab_size=old.vocab_size,
        hidden_size=old.hidden_size,
        intermediate_size=old.intermediate_size,
        num_hidden_layers=old.num_hidden_layers,
        num_attention_heads=old.num_attention_heads,
        num_key_value_heads=old.num_key_value_heads,
        max_position_embeddings=old.max_position_embeddings,
        rms_norm_eps=1e-5,
        rope_parameters=old.rope_parameters,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
        **numbers,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(**numbers)
    model.save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
