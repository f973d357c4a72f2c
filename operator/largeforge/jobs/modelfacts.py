"""A model's folder, or one of the hub's of which only the headers are known, as facts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.inspect import Facts, ModelFacts
from largeforge.jobs import architecture, weights
from largeforge.jobs.architecture import Config, number
from largeforge.jobs.artifacterrors import PickledWeightsError, RemoteCodeError
from largeforge.jobs.folders import PICKLES, Folder
from largeforge.jobs.provenance import provenance
from largeforge.jobs.tokenizerfacts import VOCABULARIES, tokenizer_facts
from largeforge.jobs.weights import Tensor

Resolve = Callable[[Path], tuple[Config, str]]
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PACKED = {"I32": 32, "U8": 8, "I64": 64}
"""Types that hold several quantized weights in one number, with their bits."""
_BESIDE = re.compile(r"(.*_)?(scales?|scale_inv|zero_point|q?zeros|g_idx|shape|absmax|quant_map)")
"""The last part of the names of tensors that belong to quantized weights and are none."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights that an engine would load."""

    tensors: Sequence[Tensor]
    digest: str


def model_facts(
    folder: Folder, *, trusted: bool, commit: str | None = None, resolve: Resolve = architecture.resolved
) -> ModelFacts:
    """The facts of a model's folder; a `RunError` says why it is none.

    Its weights are read once, for the digest, unless it is of the hub: a *commit* stands for them.
    """
    names = folder.names()
    check_files(folder, names, trusted=trusted)
    chosen = chosen_weights(folder, names)
    tensors = [tensor for name in chosen for tensor in folder.tensors(name)]
    with folder.reading():
        digest = commit or weights.digest([folder.path / name for name in chosen])
    every = [name for name in names if name.endswith(".safetensors")]
    facts = described(folder, names, Weights(tensors, digest), resolve=resolve)
    made = provenance(folder, names, digest=digest) if sorted(every) == chosen else None
    return facts.model_copy(update={"size_bytes": sum(names.values()), "provenance": made, "commit": commit})


def check_files(folder: Folder, names: Mapping[str, int], *, trusted: bool) -> None:
    """Raise where the files *names* of *folder* are no model that may be served."""
    if "config.json" not in names:
        adapter = "; it is an adapter, and its base belongs here" if "adapter_config.json" in names else ""
        raise folder.wrong(f"has no config.json{adapter or '; name the folder of a model'}")
    for name in ("config.json", "tokenizer_config.json"):
        if name in names and "auto_map" in folder.json(name) and not trusted:
            raise folder.wrong(
                f"{name} has auto_map, which asks for code of the model's own; use a model that the engine knows by"
                " itself, or set trustRemoteCode: true where the chart allows it",
                RemoteCodeError,
            )
    if not any(name in names for name in VOCABULARIES):
        raise folder.wrong(f"has no tokenizer ({', '.join(VOCABULARIES)}); copy it there")


def chosen_weights(folder: Folder, names: Mapping[str, int]) -> list[str]:
    """The files that the index names, else the only one, else all: as transformers and vLLM choose them."""
    there = {name for name in names if name.endswith(".safetensors")}
    if INDEX in names:
        index = folder.json(INDEX).get("weight_map")
        if not isinstance(index, dict):
            raise folder.wrong(f"{INDEX} is no index of weights; copy it again")
        chosen = {str(name) for name in index.values()}
        if missing := sorted(chosen - there):
            raise folder.wrong(f"lacks {len(missing)} of its weight files, first {missing[0][:100]}; copy it again")
        return sorted(chosen)
    if there:
        return [SINGLE] if SINGLE in there else sorted(there)
    if any(name.endswith(PICKLES) for name in names):
        raise folder.wrong("has pickled weights only; convert them to safetensors", PickledWeightsError)
    raise folder.wrong("has no *.safetensors; copy the weights there")


def described(
    folder: Folder, names: Mapping[str, int], found: Weights, *, resolve: Resolve = architecture.resolved
) -> ModelFacts:
    """The facts from the small files of *folder* and the headers of its weights."""
    raw = folder.json("config.json")
    settings, unread = resolve(folder.path)
    config = settings or _plain(raw)
    named = raw.get("architectures")
    first = str(named[0])[:128] if isinstance(named, list) and named else ""
    attention = architecture.attention(config, first) if settings else architecture.Attention(unknown=unread)
    quantization = raw.get("quantization_config")
    own_code = any("auto_map" in folder.json(n) for n in ("config.json", "tokenizer_config.json") if n in names)
    return ModelFacts(
        **common(found.tensors, bits=_bits(quantization)),
        digest=found.digest,
        tokenizer=tokenizer_facts(folder, names),
        architecture=first,
        model_type=str(raw.get("model_type", ""))[:64],
        layers=number(config, "num_hidden_layers"),
        attention_heads=number(config, "num_attention_heads"),
        kv_heads=architecture.kv_heads(config),
        head_size=architecture.head_size(config),
        hidden_size=number(config, "hidden_size"),
        max_positions=number(config, "max_position_embeddings"),
        vocabulary=number(config, "vocab_size"),
        quantization=str(quantization.get("quant_method", ""))[:64] if isinstance(quantization, dict) else "",
        attention=attention.kind,
        cache=attention.cache,
        cache_unknown=attention.unknown[:256],
        own_code=own_code,
    )


def common(tensors: Sequence[Tensor], *, bits: int | None = None) -> dict[str, Any]:
    """Fields of `Facts` that the headers tell; packed weights have *bits* each, None where nobody says so."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.size
    dtype = max(sizes, key=lambda name: (sizes[name], name), default="")
    fields = Facts(weight_bytes=sizes.total(), dtype=dtype[:64], parameters=_parameters(tensors, bits))
    return fields.model_dump(include={"weight_bytes", "dtype", "parameters"})


def _parameters(tensors: Sequence[Tensor], bits: int | None) -> int | None:
    count = 0
    for tensor in tensors:
        if _BESIDE.fullmatch(tensor.name.rpartition(".")[2]):
            continue
        packed = _PACKED.get(tensor.dtype)
        if packed is not None and bits is None:
            return None
        count += tensor.count * packed // bits if packed is not None and bits is not None else tensor.count
    return count


def _bits(quantization: Any) -> int | None:
    """The bits of a packed weight, by `quantization_config`."""
    if not isinstance(quantization, dict):
        return None
    groups = quantization.get("config_groups")
    found = {quantization.get("bits"), quantization.get("w_bit")}
    if isinstance(groups, dict):
        parts = [group.get("weights") for group in groups.values() if isinstance(group, dict)]
        found |= {part.get("num_bits") for part in parts if isinstance(part, dict)}
    if quantization.get("load_in_4bit"):
        found.add(4)
    known = {each for each in found if isinstance(each, int) and 0 < each <= 16}
    return known.pop() if len(known) == 1 else None


def _plain(raw: Mapping[str, Any]) -> Config:
    """The fields that transformers does not read for us; of a model of several parts, those of the text."""
    text = raw.get("text_config")
    return text if isinstance(text, dict) else raw
