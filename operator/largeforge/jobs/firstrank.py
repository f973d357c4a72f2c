"""With FSDP the first rank alone reads the weights; the others build the model without any, and get their shards of it.

transformers has a switch for it (`FSDP_CPU_RAM_EFFICIENT_LOADING`), with which the other ranks of version 5.23 read all
weights all the same. So they build it here; the sharing out is accelerate's, by the argument
`cpu_ram_efficient_loading`. Torch is imported inside.
"""

from __future__ import annotations

from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs import models
from largeforge.jobs.models import Base


def possible(config: RunConfig, base: Base) -> bool:
    """Whether the first rank can read for all; the same on every rank.

    Not with DoRA, which computes with the base's weights when it is made, nor with an adapter to go on from, which PEFT
    puts where the base's weights are. Not with buffers that are saved (accelerate shares out sharded tensors alone).
    """
    if config.compute.strategy != "FSDP" or config.compute.processes == 1:
        return False
    if config.adapter is not None or (config.lora is not None and config.lora.use_dora):
        return False
    model = _empty(base, None)
    passing = {name for name, _ in model.named_non_persistent_buffers()}
    return all(name in passing for name, _ in model.named_buffers())


def load(base: Base, dtype: Any, *, attn_implementation: str | None = None) -> Any:
    """The base as *dtype*, with its weights on the first rank and without on the others; all ranks must call this."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    first = PartialState().is_main_process
    if first:
        model = models.load_weights(base, dtype, attn_implementation=attn_implementation)
    else:
        # Memory that nobody writes to costs none. It must not stay on the meta device, where all tensors have one
        # address: by theirs accelerate finds the optimizer's parameters again, and would train a single one of them.
        model = _empty(base, dtype, attn_implementation=attn_implementation).to_empty(device="cpu")
        model.tie_weights()
    passing = dict(model.named_non_persistent_buffers()) if first else {}  # computed, as rotary frequencies are
    (passing,) = broadcast_object_list([passing])
    if not first:
        for name, buffer in passing.items():
            parent, _, own = name.rpartition(".")
            model.get_submodule(parent).register_buffer(own, buffer, persistent=False)
    return model


def _empty(base: Base, dtype: Any, *, attn_implementation: str | None = None) -> Any:
    """The model on torch's meta device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    chosen = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    try:
        described = AutoConfig.from_pretrained(base.folder, **base.trusted)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                described, dtype=dtype, trust_remote_code=base.trusted["trust_remote_code"], **chosen
            )
    except Exception as error:  # a foreign configuration raises what it likes
        raise base.unloadable("config.json", error) from error
