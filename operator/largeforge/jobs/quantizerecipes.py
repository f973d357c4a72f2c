"""The recipes of llm-compressor: one for each method. llm-compressor is imported inside."""

from __future__ import annotations

from typing import Any

from largeforge.api.quantize import MethodSettings

SMOOTHING = 0.8
"""How much of the outliers SmoothQuant moves from activations into weights; what upstream's examples for 8 bits use."""


def recipe(settings: MethodSettings) -> list[Any]:
    """The modifiers of *settings*, in order."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    ignore = list(settings.ignore)
    match settings.method:
        case "AWQ":
            return [AWQModifier(), QuantizationModifier(config_groups=_groups(settings), ignore=ignore)]
        case "GPTQ":
            return [GPTQModifier(config_groups=_groups(settings), ignore=ignore)]
        case "W8A8":
            return [
                SmoothQuantModifier(smoothing_strength=SMOOTHING),
                QuantizationModifier(targets=["Linear"], scheme="W8A8", ignore=ignore),
            ]
        case "FP8Dynamic":
            return [QuantizationModifier(targets=["Linear"], scheme="FP8_DYNAMIC", ignore=ignore)]


def _groups(settings: MethodSettings) -> dict[str, Any]:
    """Weights in 4 bits: the preset, but for the group size, which in the preset is 128."""
    from compressed_tensors.quantization import preset_name_to_scheme

    scheme = preset_name_to_scheme("W4A16" if settings.symmetric else "W4A16_ASYM", ["Linear"])
    scheme.weights.group_size = settings.group_size
    return {"group_0": scheme}
