"""The method AWQ by AutoAWQ, in its own image: autoawq 0.2.9 with transformers 4.51.3. Upstream is archived."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeforge.jobs import basemodel, quantizemends, weights
from largeforge.jobs.quantizescheme import Layer, Shape

if TYPE_CHECKING:
    from largeforge.jobs.quantizing import Tell, Work

AT_ONCE = 8
"""Samples that go through a block together; all of them would need the memory of all at once."""
_OLD_SETTINGS = ("rope_theta", "rope_scaling")
"""What transformers 4 reads at the top of a `config.json`, and transformers 5 writes into `rope_parameters`."""

Follow = Callable[[Any, "Tell"], Any]


def quantize(work: Work, folder: Path, tell: Tell, follow: Follow) -> list[str]:
    """Write the smaller model into *folder*; return what the user should know."""
    import torch
    from awq import AutoAWQForCausalLM

    base = work.base
    source = folder / ".source"
    _make_readable(base.folder, source)
    model = AutoAWQForCausalLM.from_pretrained(
        str(source),
        torch_dtype=torch.bfloat16,
        safetensors=True,
        # Its own default is to trust.
        trust_remote_code=base.trusted["trust_remote_code"],
        local_files_only=True,
    )
    with follow(model.model, tell):
        model.quantize(
            quant_config={
                "zero_point": not work.settings.symmetric,
                "q_group_size": work.settings.group_size,
                "w_bit": 4,
                "version": "GEMM",
            },
            calib_data=[list(sample) for sample in work.samples],
            max_calib_samples=len(work.samples),
            max_calib_seq_len=max(len(sample) for sample in work.samples),
            n_parallel_calib_samples=AT_ONCE,
            quantizer_cls=quantizemends.autoawq_quantizer(),
        )
    model.save_quantized(str(folder), safetensors=True)
    for path in source.iterdir():
        path.unlink()
    source.rmdir()
    return []


def _make_readable(folder: Path, aside: Path) -> None:
    """Make *aside* a folder that transformers 4 reads as transformers 5 reads *folder*."""
    aside.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("config.json", *basemodel.TOKENIZER_FILES):
            (aside / path.name).symlink_to(path.resolve())
    settings = json.loads((folder / "config.json").read_bytes())
    (aside / "config.json").write_text(json.dumps(for_transformers_4(settings)))


def for_transformers_4(settings: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` of transformers 5 in the words of transformers 4.

    Without it the rotation of positions is another one, in silence: the model answers, and is worse.
    """
    found = dict(settings)
    rope = found.pop("rope_parameters", None)
    if isinstance(rope, dict):
        if "rope_theta" in rope:
            found["rope_theta"] = rope["rope_theta"]
        rest = {name: value for name, value in rope.items() if name != "rope_theta"}
        if rest.get("rope_type", "default") != "default":
            found["rope_scaling"] = rest
    if "dtype" in found:
        found["torch_dtype"] = found.pop("dtype")
    return found


def shape(folder: Path) -> Shape:
    """The shape of the model in *folder* by its `config.json`: the library has no skeleton to look at."""
    settings = json.loads((folder / "config.json").read_bytes())
    hidden, inner, blocks = (int(settings[name]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    sizes = [(hidden, hidden)] * 4 + [(hidden, inner)] * 2 + [(inner, hidden)]
    layers = [
        Layer(f"{block}.{i}", inputs, outputs) for block in range(blocks) for i, (inputs, outputs) in enumerate(sizes)
    ]
    size = sum(path.stat().st_size for path in weights.safetensors_files(folder))
    return Shape(parameters=size // 2, layers=layers, hidden=hidden, blocks=blocks)
