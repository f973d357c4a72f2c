"""Whether the methods fit the model: looked at on its skeleton, before any work. Torch is imported inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.quantize import MethodSettings
from largeforge.jobs.errors import InvalidConfigError
from largeforge.jobs.models import Base

GROUP_SIZE = "spec.scheme.groupSize"
IGNORE = "spec.scheme.ignore"
GROUP_SIZES = (128, 64, 32)
"""What the engine's kernels know, the smallest result first."""
HEAD = "lm_head"
_SHOWN = 3


class SchemeInvalidError(InvalidConfigError):
    """The scheme does not fit the model."""

    reason = Reason.SCHEME_INVALID


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer that is quantized."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What of the model decides memory and time."""

    parameters: int
    layers: list[Layer]
    hidden: int
    blocks: int
    """Decoder blocks, which are worked on one after the other."""

    @property
    def per_block(self) -> list[Layer]:
        """The layers of one block, the widest model's share of memory."""
        return self.layers[: max(1, len(self.layers) // max(1, self.blocks))]


def skeleton(base: Base) -> Any:
    """The model without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        described = AutoConfig.from_pretrained(base.folder, **base.trusted)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                described, trust_remote_code=base.trusted["trust_remote_code"], dtype=torch.bfloat16
            )
    except Exception as error:  # a foreign configuration raises what it likes
        raise base.unloadable("config.json", error) from error


def shape(model: Any, ignore: Sequence[str]) -> Shape:
    """The shape of *model* where the modules of *ignore* stay as they are."""
    from compressed_tensors.utils import match_named_modules

    _check_ignore(model, ignore)
    layers = [
        Layer(name, module.in_features, module.out_features)
        for name, module in match_named_modules(model, ["Linear"], ignore=list(ignore))
    ]
    if not layers:
        raise SchemeInvalidError(f"{IGNORE}: leaves no linear layer to quantize; remove some of it", field=IGNORE)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=layers,
        hidden=int(model.config.get_text_config().hidden_size),
        blocks=len(blocks(model)),
    )


def blocks(model: Any) -> list[Any]:
    """The decoder blocks of *model*, in order: what the libraries go through one after the other."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def check_library(settings: MethodSettings) -> None:
    """Raise where the library cannot do what is asked for."""
    if settings.engine == "AutoAWQ" and settings.ignore != [HEAD]:
        raise SchemeInvalidError(
            f"{IGNORE}: AutoAWQ quantizes every layer but the head; remove it, or set engine: LLMCompressor",
            field=IGNORE,
        )


def _check_ignore(model: Any, ignore: Sequence[str]) -> None:
    from compressed_tensors.utils import match_named_modules

    for pattern in ignore:
        if pattern != HEAD and not any(True for _ in match_named_modules(model, [pattern])):
            raise SchemeInvalidError(
                f"{IGNORE}: the model has no module {pattern!r}; correct it, or remove it", field=IGNORE
            )
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and bool(model.config.get_text_config().tie_word_embeddings)
    ignored = {module for pattern in ignore for _, module in match_named_modules(model, [pattern])}
    if tied and head is not embedding and head not in ignored:
        raise SchemeInvalidError(
            f"{IGNORE}: this model's head is its embedding, which cannot be quantized; add {HEAD}", field=IGNORE
        )


def check_groups(settings: MethodSettings, layers: Sequence[Layer]) -> None:
    """Raise where the group size does not divide the input size of each of *layers*."""
    size = settings.group_size
    if size is None:
        return
    wrong = [layer for layer in layers if layer.inputs % size]
    if not wrong:
        return
    fitting = [other for other in GROUP_SIZES if not any(layer.inputs % other for layer in layers)]
    remedy = f"set groupSize: {fitting[0]}" if fitting else "add these layers to scheme.ignore"
    shown = ", ".join(f"{layer.name} ({layer.inputs})" for layer in wrong[:_SHOWN])
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    raise SchemeInvalidError(
        f"{settings.field}: {settings.method} with groupSize {size} does not fit the input size of {len(wrong)} of"
        f" {len(layers)} layers: {shown}{more}; {remedy}",
        field=GROUP_SIZE,
    )
