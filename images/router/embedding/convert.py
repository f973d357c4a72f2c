# ruff: noqa: INP001 - a script by itself
"""
Turn all-MiniLM-L6-v2 from safetensors into what the router runs: ONNX, in float32 and in int8, with the tokenizer.

Usage: convert.py MODEL_FOLDER TARGET_FOLDER

The graph is written by hand: it takes the ids of one text and gives the mean of its token vectors with length one. So
there is no padding and no mask, and a text's vector cannot depend on what it is computed beside.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.numpy import load_file

OPSET = 20
IR = 10


class Graph:
    """Nodes and weights, in the order in which they are written."""

    def __init__(self, weights: dict[str, Any], config: dict[str, Any]) -> None:
        self.weights = weights
        self.heads: int = config["num_attention_heads"]
        self.width: int = config["hidden_size"]
        self.epsilon: float = config["layer_norm_eps"]
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """One operation; the name of its output."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        """A weight under *name*."""
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def dense(self, text: str, *names: str) -> str:
        """The linear layers *names* side by side."""
        weight = np.concatenate([self.weights[f"{name}.weight"] for name in names])
        bias = np.concatenate([self.weights[f"{name}.bias"] for name in names])
        product = self.node("MatMul", text, self.constant(f"{names[0]}.weight", weight.T))
        return self.node("Add", product, self.constant(f"{names[0]}.bias", bias))

    def normed(self, text: str, name: str) -> str:
        """The layer norm *name*."""
        weight, bias = (self.constant(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", text, weight, bias, axis=-1, epsilon=self.epsilon)

    def attention(self, text: str, layer: str) -> str:
        """Self-attention with its projection."""
        each = self.width // self.heads
        qkv = self.dense(text, *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")))
        shape = self.constant(f"{layer}.heads", np.array([0, 3, self.heads, each], dtype=np.int64))
        split = self.node("Transpose", self.node("Reshape", qkv, shape), perm=[1, 2, 0, 3])
        parts = [
            self.node("Gather", split, self.constant(f"{layer}.part{index}", np.array(index, dtype=np.int64)), axis=0)
            for index in range(3)
        ]
        scale = self.constant(f"{layer}.scale", np.array(each**-0.5, dtype=np.float32))
        scores = self.node(
            "MatMul", self.node("Mul", parts[0], scale), self.node("Transpose", parts[1], perm=[0, 2, 1])
        )
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), parts[2])
        flat = self.constant(f"{layer}.flat", np.array([-1, self.width], dtype=np.int64))
        joined = self.node("Reshape", self.node("Transpose", mixed, perm=[1, 0, 2]), flat)
        return self.dense(joined, f"{layer}.attention.output.dense")

    def layer(self, text: str, layer: str) -> str:
        """One layer of BERT."""
        attended = self.node("Add", self.attention(text, layer), text)
        text = self.normed(attended, f"{layer}.attention.output.LayerNorm")
        inner = self.node("Gelu", self.dense(text, f"{layer}.intermediate.dense"))
        return self.normed(
            self.node("Add", self.dense(inner, f"{layer}.output.dense"), text), f"{layer}.output.LayerNorm"
        )

    def embedded(self, ids: str) -> str:
        """Words, positions and the one token type, added."""
        names = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
        words = self.node("Gather", self.constant("words", self.weights[names[0]]), ids, axis=0)
        positions = self.constant("positions", self.weights[names[1]] + self.weights[names[2]][0])
        zero, one = (
            self.constant(name, np.array([value], dtype=np.int64)) for name, value in (("zero", 0), ("one", 1))
        )
        length = self.node("Shape", ids)
        place = self.node("Slice", positions, zero, length, zero, one)
        return self.normed(self.node("Add", words, place), "embeddings.LayerNorm")

    def pooled(self, text: str) -> str:
        """The mean with length one."""
        rows = self.constant("rows", np.array([0], dtype=np.int64))
        mean = self.node("ReduceMean", text, rows, keepdims=0)
        return self.node("Div", mean, self.node("ReduceL2", mean, rows, keepdims=1), name="embedding")


def model(weights: dict[str, Any], config: dict[str, Any]) -> Any:
    """The model: ids of one text in, its vector out."""
    graph = Graph(weights, config)
    text = graph.embedded("ids")
    for index in range(config["num_hidden_layers"]):
        text = graph.layer(text, f"encoder.layer.{index}")
    graph.pooled(text)
    made = helper.make_graph(
        graph.nodes,
        "minilm",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["tokens"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [graph.width])],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


def main(source: Path, target: Path) -> None:
    """Write `float32` and `int8` under *target*."""
    config = json.loads((source / "config.json").read_text())
    made = model(load_file(source / "model.safetensors"), config)
    onnx.checker.check_model(made)
    for name in ("float32", "int8"):
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
        if name == "float32":
            onnx.save(made, folder / "model.onnx")
        else:
            quantize_dynamic(
                target / "float32" / "model.onnx",
                folder / "model.onnx",
                per_channel=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Gather"],
                nodes_to_exclude=[
                    node.name for node in made.graph.node if node.op_type == "Gather" and node.input[0] != "words"
                ],
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
