"""Folders of models, as tests need them, without torch."""

from __future__ import annotations

import json
import struct


def safetensors(values=b"\x00" * 8, *, name="w", cut=0):
    """The bytes of a safetensors file with one tensor; the last *cut* of them are left out."""
    header = json.dumps({name: {"dtype": "F32", "shape": [len(values) // 4], "data_offsets": [0, len(values)]}})
    whole = struct.pack("<Q", len(header)) + header.encode() + values
    return whole[: len(whole) - cut]


def model(path, *, config=None, tokenizer_config=None, weights=("model.safetensors",)):
    """A folder that passes for a model."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config if config is not None else {"model_type": "llama"}))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config or {}))
    (path / "chat_template.jinja").write_text("{{ messages }}")
    for name in weights:
        (path / name).write_bytes(safetensors())
    return path
