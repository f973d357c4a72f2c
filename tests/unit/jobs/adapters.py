"""Folders of adapters, as tests need them, without torch."""

from __future__ import annotations

import json
import struct

import numpy as np

PREFIX = "base_model.model.model.layers.0.self_attn"
CONFIG = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "base_model_name_or_path": "pvc://models/base",
    "target_modules": ["q_proj", "v_proj"],
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
}


def tensors_of(arrays, *, dtypes=None):
    """The bytes of a safetensors file with *arrays* by name; *dtypes* names types that numpy does not have."""
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "uint8": "U8", "uint16": "U16"}
    header, at, body = {}, 0, b""
    for name, array in arrays.items():
        dtype = (dtypes or {}).get(name, names[str(array.dtype)])
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
        body += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def matrices(*, rank=4, module="q_proj", b=0.5):
    return {
        f"{PREFIX}.{module}.lora_A.weight": np.full((rank, 16), 0.25, np.float32),
        f"{PREFIX}.{module}.lora_B.weight": np.full((16, rank), b, np.float32),
    }


def adapter(path, *, arrays=None, dtypes=None, **config):
    """A folder as PEFT writes it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    (path / "adapter_model.safetensors").write_bytes(tensors_of(arrays or matrices(), dtypes=dtypes))
    return path
