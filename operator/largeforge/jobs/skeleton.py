"""The base without its weights: built on torch's meta device, to see its modules and to count what will be trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from largeforge.api.run import LoraSettings, RunConfig
from largeforge.jobs import models
from largeforge.jobs.arguments import lora_arguments
from largeforge.jobs.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Size:
    """How large the model and its trained part are."""

    parameters: int
    trained: int


def examine(config: RunConfig, base: models.Base) -> Size:
    """Build the model that *config* trains; a `RunError` says what does not fit together."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        described = AutoConfig.from_pretrained(base.folder, **base.trusted)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                described, trust_remote_code=base.trusted["trust_remote_code"], dtype=torch.float32
            )
    except Exception as error:  # a foreign configuration raises what it likes
        raise base.unloadable("config.json", error) from error
    whole = sum(parameter.numel() for parameter in model.parameters())
    if config.adapter is not None:
        models.check_adapter(config.adapter, config.lora)
    if config.lora is None:
        return Size(whole, whole)
    models.check_modules(config.lora, model)
    return Size(whole, _trained(config.lora, model))


def _trained(lora: LoraSettings, model: Any) -> int:
    from peft import LoraConfig, get_peft_model

    try:
        adapted = get_peft_model(model, LoraConfig(**lora_arguments(lora)), low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidConfigError(f"spec.peft: PEFT refuses it ({text[:300]}); correct it", field="spec.peft") from None
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
