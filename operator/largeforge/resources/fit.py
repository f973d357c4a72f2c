"""Whether a model fits, by arithmetic: weights, KV cache and adapters against the memory that there is.

It says no only where it is sure: what an engine takes beside (activations, graphs) is left out on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inspect import ModelFacts
from largeforge.api.serving import Lora
from largeforge.resources.enginepod import amounts, kv_cache_bytes
from largeforge.resources.quantity import quantity

GIB = 1 << 30
PROCESSES_BYTES = GIB
"""What three processes of vLLM and torch take on a CPU before any weight: 1.3 GiB were measured with 0.32.0."""
UTILIZATION = 0.92
"""vLLM's default share of a GPU."""
_SIXTEEN_BIT = 2.0
_DTYPE_BYTES = {"float32": 4.0, "float": 4.0}
_KV_BYTES = {"fp8": 1.0, "int8": 1.0, "int4": 0.5, "nvfp4": 0.5, "turboquant_3bit": 0.375, "turboquant": 0.5}
"""By the beginning of the name; what is not here takes 16 bits, which is the most."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The arithmetic in one line, and whether it comes to no."""

    line: str
    fits: bool = True


@dataclass(frozen=True, slots=True)
class _Needs:
    """Bytes of one replica."""

    weights: float
    sequence: float | None
    """The KV cache of one request of the full length; None where it cannot be told."""
    tokens: int | None
    adapters: float
    slots: int


def fit_of(service: InferenceService, facts: ModelFacts) -> Fit:
    """How much of what there is one replica of *service* needs for the model with *facts*."""
    needs = _Needs(
        weights=_weights(service, facts),
        sequence=_sequence(service, facts),
        tokens=longest(service, facts),
        adapters=_adapters(service, facts),
        slots=service.spec.lora.slots if service.spec.lora is not None else 0,
    )
    return _on_gpus(service, needs, facts) if service.spec.compute.gpus_per_replica else _on_cpu(service, needs, facts)


def longest(service: InferenceService, facts: ModelFacts) -> int | None:
    """The longest prompt and answer together, in tokens."""
    return service.spec.engine.max_model_len or facts.max_positions


def _on_gpus(service: InferenceService, needs: _Needs, facts: ModelFacts) -> Fit:
    compute = service.spec.compute
    total = needs.weights + needs.adapters + (needs.sequence or 0)
    said = _said(needs, facts)
    if compute.gpu_memory is None:
        return Fit(f"{said} = {_gib(total)}; set compute.gpuMemory to have it compared with the GPU")
    share = service.spec.engine.gpu_memory_utilization or UTILIZATION
    room = float(quantity(compute.gpu_memory)) * share * compute.gpus_per_replica
    of = f"{compute.gpus_per_replica} x {compute.gpu_memory} x {share:g}"
    line = f"{said} = {_gib(total)} of {_gib(room)} ({of})"
    return _verdict(line, total <= room, room - needs.weights - needs.adapters, needs)


def _on_cpu(service: InferenceService, needs: _Needs, facts: ModelFacts) -> Fit:
    limit = amounts(service)["limits"]["memory"]
    cache, room = float(kv_cache_bytes(limit)), float(quantity(limit))
    total = needs.weights + needs.adapters + cache + PROCESSES_BYTES
    said = f"{_gib(needs.weights)} weights + {_gib(cache)} KV cache{_slots(needs)} + {_gib(PROCESSES_BYTES)} processes"
    line = f"{said} = {_gib(total)} of {_gib(room)} (resources.limits.memory)"
    if needs.sequence is None:
        line += f"; {_unknown(facts)}"
    elif needs.sequence > cache:
        line += f"; one request of {needs.tokens} tokens takes {_gib(needs.sequence)} of KV cache"
        return Fit(line, fits=False)
    return _verdict(line, total <= room, cache, needs)


def _verdict(line: str, fits: bool, cache: float, needs: _Needs) -> Fit:  # noqa: FBT001 - the arithmetic's own answer
    if not fits or not needs.sequence:
        return Fit(line, fits)
    return Fit(f"{line}; {int(cache / needs.sequence)} requests of {needs.tokens} tokens at a time")


def _said(needs: _Needs, facts: ModelFacts) -> str:
    cache = (
        f"{_gib(needs.sequence)} KV cache of a request of {needs.tokens} tokens"
        if needs.sequence is not None
        else _unknown(facts)
    )
    return f"{_gib(needs.weights)} weights + {cache}{_slots(needs)}"


def _slots(needs: _Needs) -> str:
    return f" + {_gib(needs.adapters)} for {needs.slots} adapters" if needs.slots else ""


def _unknown(facts: ModelFacts) -> str:
    return f"KV cache not known ({facts.cache_unknown or 'config.json does not say enough'})"


def _weights(service: InferenceService, facts: ModelFacts) -> float:
    """Plain weights are loaded in 16 bit unless 32 are asked for; quantized ones as they lie there."""
    plain = not facts.quantization and service.spec.engine.quantization is None
    if plain and facts.parameters is not None:
        return facts.parameters * _DTYPE_BYTES.get(service.spec.engine.dtype or "", _SIXTEEN_BIT)
    return float(facts.weight_bytes)


def _sequence(service: InferenceService, facts: ModelFacts) -> float | None:
    tokens = longest(service, facts)
    if facts.cache is None or tokens is None:
        return None
    return facts.cache.values(tokens) * _kv_bytes(service)


def _kv_bytes(service: InferenceService) -> float:
    engine = service.spec.engine
    if engine.kv_cache_dtype is None:
        return _DTYPE_BYTES.get(engine.dtype or "", _SIXTEEN_BIT)
    return next((size for name, size in _KV_BYTES.items() if engine.kv_cache_dtype.startswith(name)), _SIXTEEN_BIT)


def _adapters(service: InferenceService, facts: ModelFacts) -> float:
    """The buffers of one batch's adapters, and on a CPU the slots beside them, which are in host memory elsewhere."""
    lora = service.spec.lora
    if lora is None:
        return 0.0
    held = lora.max_loras if service.spec.compute.gpus_per_replica else lora.max_loras + lora.slots
    return held * _adapter(lora, facts)


def _adapter(lora: Lora, facts: ModelFacts) -> float:
    """An adapter of the highest rank on all linear modules, as the buffers have it, about; 0 where not enough is known.

    A module of `in x out` has `rank x (in + out)` weights. The width of the feed-forward part follows from the
    parameters that attention and embedding leave.
    """
    hidden, layers, heads = facts.hidden_size, facts.layers, facts.attention_heads
    if not (hidden and layers and heads and facts.parameters):
        return 0.0
    size = facts.head_size or hidden // heads
    queries, keys = heads * size, (facts.kv_heads or heads) * size
    attention = 2 * hidden * queries + 2 * hidden * keys
    of_layer = (facts.parameters - (facts.vocabulary or 0) * hidden) / layers
    width = max(0.0, (of_layer - attention) / (3 * hidden))
    sides = 2 * (hidden + queries) + 2 * (hidden + keys) + 3 * (hidden + width)
    return lora.max_lora_rank * sides * layers * _SIXTEEN_BIT


def _gib(amount: float) -> str:
    return f"{amount / GIB:.2f} GiB"
