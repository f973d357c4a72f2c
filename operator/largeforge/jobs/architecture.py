"""What a model's configuration says of its size, and of what a token takes of the KV cache. Pure but for `resolved`.

The rules are vLLM's own (`ModelConfig.get_total_num_kv_heads`, `get_head_size`, its cache specs by type of layer). What
follows none of them is said to be unknown: a guess would let an engine start that cannot.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.inspect import CacheFacts

Config = Mapping[str, Any]

NAMES = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_size",
    "max_position_embeddings",
    "vocab_size",
    "sliding_window",
    "attention_chunk_size",
    "layer_types",
    "num_kv_shared_layers",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "is_encoder_decoder",
    "cross_attention_layers",
    "index_topk",
    "multi_query",
    "new_decoder_architecture",
    "num_kv_heads",
    "n_head_kv",
    "multi_query_group_num",
)
"""What is read, in the words that most configurations use; transformers maps the others' to these."""
_ALL_TOKENS = {"full_attention", "hybrid"}
_WINDOWED = {"sliding_attention", "chunked_attention", "hybrid_sliding"}
_STATE = {"linear_attention", "mamba", "conv", "hybrid", "hybrid_sliding"}
_NOTHING = {"mlp", "moe"}
_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")


@dataclass(frozen=True, slots=True)
class Attention:
    """How a model attends, and what that takes."""

    kind: str = "Unknown"
    cache: CacheFacts | None = None
    unknown: str = ""


def resolved(folder: Path) -> tuple[Config, str]:
    """The configuration in *folder* with transformers' defaults, or a reason why there are none.

    No code of the model's own is run, whatever the configuration asks for.
    """
    # Nothing of a configuration needs torch, which costs 3 s and 600 MB: none of the 804 of transformers 5.23 changes
    # without it. Where it is imported already, it stays. With None there, an import says that there is no such module,
    # which the annotation of sys.modules does not know.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would miss torch aloud
    from transformers import AutoConfig, __version__

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
    except Exception as error:  # noqa: BLE001 - a configuration raises whatever its checks raise
        return {}, f"transformers {__version__} does not read its config.json ({type(error).__name__})"
    found = {name: getattr(config, name, None) for name in NAMES}
    return {name: value for name, value in found.items() if value is not None}, ""


def number(config: Config, name: str) -> int | None:
    """A count above zero, or None."""
    value = config.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def kv_heads(config: Config) -> int | None:
    """Heads of keys and values in a layer."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon-7B and the like
    for name in ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num"):
        if (found := number(config, name)) is not None:
            return found
    return number(config, "num_attention_heads")


def head_size(config: Config) -> int | None:
    """Numbers of a head."""
    if (found := number(config, "head_dim")) is not None:
        return found
    hidden, heads = number(config, "hidden_size"), number(config, "num_attention_heads")
    return hidden // heads if hidden is not None and heads is not None else None


def attention(config: Config, architecture: str) -> Attention:
    """What a token takes in each layer, by the layer's type."""
    if (reason := _beyond(config, architecture)) is not None:
        return Attention(unknown=reason)
    layers = number(config, "num_hidden_layers")
    types = _types(config, layers or 0)
    if layers is None or types is None:
        return Attention(unknown="config.json does not say how many layers it has, or not of each what it is")
    strange = sorted(set(types) - _ALL_TOKENS - _WINDOWED - _STATE - _NOTHING)
    if strange:
        return Attention(unknown=f"nothing is known of layers of type {strange[0][:64]!r}")
    each = _values(config)
    if each is None and set(types) - _STATE - _NOTHING:
        return Attention(unknown="config.json does not say how many heads of keys and values it has, or of what size")
    return _summed(Counter(types), each or 0, config)


def _beyond(config: Config, architecture: str) -> str | None:
    """Why the rules do not hold for this model."""
    if config.get("is_encoder_decoder"):
        return "a model of encoder and decoder"
    if config.get("cross_attention_layers"):
        return "some of its layers attend to pictures"
    if config.get("index_topk"):
        return "its attention is sparse and keeps an index (index_topk)"
    if architecture and not architecture.endswith(_GENERATES):
        return f"{architecture} generates no text"
    return None


def _types(config: Config, layers: int) -> list[str] | None:
    """The type of each layer that has a cache of its own; None where the list does not fit."""
    given = config.get("layer_types")
    if given is None:
        each = "sliding_attention" if number(config, "sliding_window") is not None else "full_attention"
        return [each] * layers
    if not isinstance(given, list) or len(given) != layers or not all(isinstance(each, str) for each in given):
        return None
    # The last ones read the caches of others.
    return given[: layers - (number(config, "num_kv_shared_layers") or 0)]


def _values(config: Config) -> int | None:
    """The numbers that a layer keeps of a token."""
    rank, rope = number(config, "kv_lora_rank"), number(config, "qk_rope_head_dim")
    if rank is not None:
        return rank + (rope or 0)
    heads, size = kv_heads(config), head_size(config)
    return 2 * heads * size if heads is not None and size is not None else None


def _summed(types: Counter[str], each: int, config: Config) -> Attention:
    whole = sum(types[name] for name in _ALL_TOKENS)
    windowed = sum(types[name] for name in _WINDOWED)
    states = sum(types[name] for name in _STATE)
    window = number(config, "sliding_window") or number(config, "attention_chunk_size") if windowed else None
    if windowed and window is None:
        return Attention(unknown="config.json does not say how many tokens its windows keep")
    cache = CacheFacts(values_per_token=each * whole, values_per_window_token=each * windowed, window=window)
    if states:
        return Attention("Hybrid", cache, f"the states of {states} layers without a cache are not counted")
    if number(config, "kv_lora_rank") is not None:
        return Attention("MLA", cache)
    return Attention("Mixed" if whole and windowed else "Window" if windowed else "Full", cache)
