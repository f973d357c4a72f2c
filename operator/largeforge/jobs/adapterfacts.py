"""An adapter's folder as facts. What its files say counts; what its configuration says, only where they are silent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from largeforge.api.inspect import AdapterFacts
from largeforge.jobs import weights
from largeforge.jobs.artifacterrors import PickledWeightsError
from largeforge.jobs.folders import PICKLES, Folder, tree
from largeforge.jobs.modelfacts import common
from largeforge.jobs.provenance import provenance
from largeforge.jobs.tokenizerfacts import tokenizer_facts
from largeforge.jobs.weights import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?(embedding)|\.weight)")
_REFUSED = ("lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")
"""Settings of PEFT that vLLM's own `PEFTHelper` refuses, beside DoRA and modules_to_save."""
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways to begin that leave the base as it is; after others (PiSSA, LoftQ) the adapter belongs to another base."""
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "lm_head", "embed_out", "shared")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of the types whose zeros and infinities are known."""
_EXPONENT = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}


def adapter_facts(folder: Folder) -> AdapterFacts:
    """The facts of an adapter's folder; a `RunError` says why it is none. Its weights are read twice."""
    names = folder.names()
    config = _config(folder, names)
    tensors = folder.tensors(WEIGHTS)
    matrices = [(tensor, found) for tensor in tensors if (found := _MATRIX.fullmatch(tensor.name)) is not None]
    if not matrices:
        raise folder.wrong(f"{WEIGHTS} has no LoRA matrices (lora_A, lora_B); name a folder that PEFT wrote")
    _check_pairs(folder, matrices)
    whole = _whole(tensors, config)
    sizes = tree(folder)
    with folder.reading(WEIGHTS):
        zero, finite = _values(folder.path / WEIGHTS, [tensor for tensor, _ in matrices])
        digest = weights.digest(weights.safetensors_files(folder.path))
    magnitude = any("lora_magnitude_vector" in tensor.name for tensor in tensors)
    silent = zero or (config.get("lora_alpha") == 0 and not config.get("alpha_pattern"))
    return AdapterFacts(
        **common(tensors),
        digest=digest,
        size_bytes=sum(size for _, size in sizes),
        tokenizer=tokenizer_facts(folder, names),
        provenance=provenance(folder, names, digest=digest),
        rank=_rank([tensor for tensor, found in matrices if found["side"] == "A"], config),
        base=str(config.get("base_model_name_or_path") or "")[:512],
        base_revision=str(config["revision"])[:64] if config.get("revision") else None,
        lora_alpha=str(config.get("lora_alpha", ""))[:64],
        use_dora=bool(config.get("use_dora")) or magnitude,
        use_rslora=bool(config.get("use_rslora")),
        target_modules=sorted({found["module"].rpartition(".")[2][:128] for _, found in matrices})[:64],
        modules_to_save=whole[:64],
        refused=_refused(tensors, config),
        extends_tokenizer=bool(config.get("trainable_token_indices"))
        or any("trainable_tokens" in tensor.name for tensor in tensors)
        or any(name.removesuffix(".bias") in _EMBEDDINGS for name in whole),
        changes_nothing=silent and not whole and not magnitude,
        not_finite=not finite,
    )


def _config(folder: Folder, names: Mapping[str, int]) -> dict[str, Any]:
    if CONFIG not in names:
        model = "; it is a whole model, which is served as type Model" if "config.json" in names else ""
        raise folder.wrong(f"has no {CONFIG}{model or '; name a folder that PEFT wrote'}")
    config = folder.json(CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise folder.wrong(f"is an adapter of type {str(kind)[:32]!r}; only LORA is served")
    if WEIGHTS not in names:
        if any(name.endswith(PICKLES) for name in names):
            raise folder.wrong("has pickled weights only; convert them to safetensors", PickledWeightsError)
        raise folder.wrong(f"has no {WEIGHTS}; copy it there")
    return config


def _check_pairs(folder: Folder, matrices: Sequence[tuple[Tensor, re.Match[str]]]) -> None:
    """Raise where a matrix has no partner, or one of another rank."""
    sides: dict[str, dict[str, Tensor]] = {}
    for tensor, found in matrices:
        if len(tensor.shape) < 2:
            raise folder.wrong(f"{WEIGHTS}: {tensor.name[:200]} is no matrix; write the adapter again")
        sides.setdefault(found["module"], {})[found["side"]] = tensor
    for module, pair in sides.items():
        if len(pair) != 2 or pair["A"].shape[0] != pair["B"].shape[1]:
            raise folder.wrong(f"{WEIGHTS}: A and B of {module[:200]} do not belong together; write the adapter again")


def _rank(sides: Sequence[Tensor], config: Mapping[str, Any]) -> int:
    """The highest rank, by the files and by the configuration: engines reserve by the latter."""
    pattern = config.get("rank_pattern")
    written = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [])]
    return max([tensor.shape[0] for tensor in sides] + [each for each in written if isinstance(each, int)])


def _whole(tensors: Sequence[Tensor], config: Mapping[str, Any]) -> list[str]:
    """The modules that are not adapted but replaced, by the files and by the configuration."""
    found = {
        name.removesuffix(".weight").rpartition(".")[2] if name.endswith(".weight") else ".".join(name.split(".")[-2:])
        for name in (tensor.name for tensor in tensors)
        if ".lora_" not in name and "trainable_tokens" not in name
    }
    written = config.get("modules_to_save")
    return sorted({name[:128] for name in found} | {str(each)[:128] for each in written or [] if written})


def _refused(tensors: Sequence[Tensor], config: Mapping[str, Any]) -> list[str]:
    """What an engine does not compute as PEFT does, in PEFT's words."""
    found = {name for name in _REFUSED if config.get(name)}
    begun = config.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower() not in _PLAIN_STARTS:
        found.add(f"init_lora_weights: {begun}"[:128])
    for name in (tensor.name for tensor in tensors if ".lora_" in tensor.name):
        if name.endswith(".bias"):
            found.add("lora_bias")
        elif _MATRIX.fullmatch(name) is None and "lora_magnitude_vector" not in name:
            found.add(name[:128])
    return sorted(found)[:8]


def _values(path: Path, matrices: Sequence[Tensor]) -> tuple[bool, bool]:
    """Whether all B matrices are zero, and whether all numbers are finite."""
    import numpy as np

    zero = finite = True
    for tensor, chunk in weights.values(path, matrices):
        size = _BYTES.get(tensor.dtype)
        numbers: Any = np.frombuffer(chunk, f"<u{size or 1}")
        if size is not None:  # of 8 bits and less there is no infinity that matters, and a zero is a zero byte
            numbers = numbers & ((1 << 8 * size - 1) - 1)  # without the sign
            exponent = _EXPONENT[tensor.dtype]
            finite = finite and not bool((numbers & exponent == exponent).any())
        if ".lora_B" in tensor.name or ".lora_embedding_B" in tensor.name:
            zero = zero and not bool(numbers.any())
    return zero, finite
