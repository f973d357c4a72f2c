"""Whether the memory suffices, before the weights are loaded. An estimate, said with its arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.quantize import MethodSettings
from largeforge.jobs.quantizeerrors import GPU_MEMORY_REMEDY, MEMORY_REMEDY, TooLargeError
from largeforge.jobs.quantizescheme import Shape

LIBRARIES = 1_000_000_000
"""torch, transformers and llm-compressor themselves."""
_HALF = 2
"""Bytes of a weight or an activation in 16 bit."""
_SINGLE = 4
_BITS = {"AWQ": 4, "GPTQ": 4, "W8A8": 8, "FP8Dynamic": 8}


@dataclass(frozen=True, slots=True)
class Text:
    """The calibration data as far as memory goes."""

    tokens: int
    """Of all samples."""
    longest: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a method will hold."""

    host: int
    device: int
    """Of a GPU, where there is one: one block after the other is brought there."""
    arithmetic: str


def text_of(samples: Sequence[Sequence[int]], vocabulary: int) -> Text:
    """What of *samples* decides memory."""
    lengths = [len(sample) for sample in samples]
    return Text(sum(lengths), max(lengths, default=0), vocabulary)


def need(settings: MethodSettings, shape: Shape, text: Text) -> Need:
    """What *settings* will hold on a model of *shape*."""
    block = shape.per_block
    widest = max(layer.inputs for layer in block)
    weights = _HALF * shape.parameters
    # The smaller model is made before the larger one goes.
    result = sum(layer.inputs * layer.outputs for layer in shape.layers) * _BITS[settings.method] // 8
    # What goes into a block and what comes out of it, for all samples; the logits of one sample at a time.
    activations = 2 * _HALF * text.tokens * shape.hidden
    logits = (_HALF + _SINGLE) * text.longest * text.vocabulary
    work = 0
    if settings.method == "AWQ":
        # The inputs of attention, of the MLP and of its last layer, and the outputs with and without quantization.
        work = _HALF * text.tokens * (4 * shape.hidden + widest)
    elif settings.method == "GPTQ":
        # A Hessian for each layer of a block, and three more of the widest while it is inverted.
        work = _SINGLE * (sum(layer.inputs**2 for layer in block) + 3 * widest**2)
    moved = _HALF * sum(layer.inputs * layer.outputs for layer in block)
    host = LIBRARIES + weights + result + activations
    said = f"weights {gb(weights)}, result {gb(result)}, activations {gb(activations)}, {settings.method} {gb(work)}"
    return Need(host + work + logits, 2 * moved + work + logits, said)


def check(settings: MethodSettings, needed: Need, *, host: int | None, device: int | None) -> None:
    """Raise where the limit of the container, or the GPU, is below what is *needed*; None where it is not known."""
    if device is not None and needed.device > device:
        raise TooLargeError(
            f"{settings.method} needs about {gb(needed.device)} of the GPU's memory, and {gb(device)} are free;"
            f" {GPU_MEMORY_REMEDY}",
            field=settings.field,
        )
    wanted = needed.host if device is None else needed.host - needed.device
    if host is not None and wanted > host:
        raise TooLargeError(
            f"{settings.method} needs about {gb(wanted)} of memory ({needed.arithmetic}), and the container may use"
            f" {gb(host)}; {MEMORY_REMEDY}",
            field="spec.compute.resources.limits.memory",
        )


def gb(size: int) -> str:
    """*size* for people."""
    return f"{size / 1e9:.1f} GB" if size >= 100_000_000 else f"{size / 1e6:.0f} MB"
