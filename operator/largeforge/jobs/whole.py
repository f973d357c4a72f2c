"""A whole model's files: written from trained weights, or from the base with an adapter merged in. Torch inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from largeforge.jobs import models
from largeforge.jobs.errors import RunError
from largeforge.jobs.models import Base


def write(base: Base, state: Mapping[str, Any], folder: Path) -> None:
    """Write the weights *state* as a model of the base's architecture, configuration and stored type.

    Not by the trained model's own `save_pretrained`: it would write the type of the training and what the trainer
    changed in the configuration, and under FSDP it has no weights.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dtype = models.stored_type(base)
    settings = AutoConfig.from_pretrained(base.folder, **base.trusted)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            settings, dtype=dtype, trust_remote_code=bool(base.trusted["trust_remote_code"])
        )
    plain = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    loaded = model.load_state_dict(plain, strict=False, assign=True)
    model.tie_weights()
    missing = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if missing or loaded.unexpected_keys:
        name = (missing or loaded.unexpected_keys)[0]
        raise RunError(f"the trained weights do not fit the base's architecture, first {name}; please report this")
    _save(base, model, folder)


def merge(base: Base, adapter: Path, folder: Path, *, look: Callable[[Any], None] = lambda _: None) -> None:
    """Write the base, in its stored type, with the adapter in *adapter* merged in.

    The base is read anew: in memory it may be in the type of the computation, or in shards. *look* is shown base plus
    adapter, and then the merged model.
    """
    from peft import PeftModel

    model = models.load_weights(base, models.stored_type(base))
    adapted = PeftModel.from_pretrained(model, adapter, local_files_only=True)
    look(adapted)
    merged = adapted.merge_and_unload(safe_merge=True)
    look(merged)
    _untie(merged)
    _save(base, merged, folder)


def _untie(model: Any) -> None:
    """Say so in the configuration where embedding and head are no longer one: only one of them was trained whole."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight.data_ptr() != embedding.weight.data_ptr():
        model.config.tie_word_embeddings = False


def _save(base: Base, model: Any, folder: Path) -> None:
    from transformers import GenerationConfig

    if (base.folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(base.folder, local_files_only=True)
    model.save_pretrained(folder)
