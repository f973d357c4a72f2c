"""The embedding of a text by a small model, one text at a time.

Never more than one: an int8 model's numbers depend on what stands beside a text, and the same text must have the same
vector wherever it is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from largeforge.router.terms import Floats

MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
MOST_TOKENS = 64
"""Of a block; the time grows with them."""
INPUT = "ids"
"""Of the model: the token ids of one text. Its one output is a vector of length one."""


class EmbeddingError(Exception):
    """The model cannot be used."""


def digest(folder: Path) -> str:
    """Of the model: vectors of another one are no use beside its own."""
    try:
        return hashlib.sha256((folder / MODEL).read_bytes() + (folder / TOKENIZER).read_bytes()).hexdigest()
    except OSError as error:
        raise EmbeddingError(f"the embedding model in {folder} cannot be used: {error}") from error


def whole_words(folder: Path) -> tuple[str, ...]:
    """The words that the model's tokenizer knows as a whole."""
    try:
        tokens = json.loads((folder / TOKENIZER).read_bytes())["model"]["vocab"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EmbeddingError(f"the embedding model in {folder} cannot be used: {_line(error)}") from error
    # Some tokenizers have a map, others pairs with a score; some mark a word's beginning, others what follows it.
    names = [token if isinstance(token, str) else token[0] for token in tokens]
    return tuple(name.removeprefix("▁") for name in names if name.removeprefix("▁").isalpha())


class Embedder:
    """A model from a folder with `model.onnx` and `tokenizer.json`; it may be asked from any thread."""

    def __init__(self, folder: Path) -> None:
        try:
            # They take half a second to load, which a router without a model does not need.
            import onnxruntime
            from tokenizers import Tokenizer

            model = (folder / MODEL).read_bytes()
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            # The wheel's tokenizer pads and cuts for its own length.
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self.width = len(self.one("hello"))
        except Exception as error:  # both libraries raise plain Exceptions of their own
            raise EmbeddingError(f"the embedding model in {folder} cannot be used: {_line(error)}") from error

    def one(self, text: str) -> Floats:
        """The vector of *text*."""
        ids = self._tokenizer.encode(text).ids
        if len(ids) > MOST_TOKENS:
            ids = [*ids[: MOST_TOKENS - 1], ids[-1]]
        found: Floats = self._session.run(None, {INPUT: np.array(ids, dtype=np.int64)})[0]
        return found

    def __call__(self, texts: Sequence[str]) -> Floats:
        """A row for each of *texts*."""
        found = np.empty((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            found[row] = self.one(text)
        return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
