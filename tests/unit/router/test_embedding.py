from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dev.embedding import model
from largeforge.router.embedding import MOST_TOKENS, Embedder, EmbeddingError, digest

TEXTS = ["how do i join two tables", "which flour is good for bread", "je voudrais une recette"]


@pytest.fixture(scope="module")
def embedder():
    return Embedder(model())


def test_texts_of_one_meaning_are_near_and_others_far(embedder: Embedder):
    a, b, c = embedder(["how do i boil an egg", "cooking eggs in hot water", "the stock market fell today"])
    assert a @ b > 0.5
    assert a @ c < 0.2


def test_a_vector_has_length_one_and_does_not_depend_on_what_it_is_computed_beside(embedder: Embedder):
    together = embedder(TEXTS)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert all((embedder.one(text) == row).all() for text, row in zip(TEXTS, together, strict=True))


def test_threads_compute_the_same(embedder: Embedder):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(embedder.one, TEXTS * 8))
    assert all((row == embedder.one(text)).all() for row, text in zip(found, TEXTS * 8, strict=True))


def test_of_a_long_text_the_beginning_counts(embedder: Embedder):
    words = "table " * MOST_TOKENS
    assert (embedder.one(words) == embedder.one(words + "of contents")).all()


def test_int8_is_near_float32(embedder: Embedder):
    exact = Embedder(model("float32"))
    assert digest(model("float32")) != digest(model())
    assert all(exact.one(text) @ embedder.one(text) > 0.98 for text in TEXTS)


def test_a_model_that_cannot_be_used_is_said_to_be_so(tmp_path: Path):
    with pytest.raises(EmbeddingError, match=r"no_model cannot be used"):
        Embedder(tmp_path / "no_model")
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    (tmp_path / "tokenizer.json").write_bytes((model() / "tokenizer.json").read_bytes())
    with pytest.raises(EmbeddingError, match="cannot be used"):
        Embedder(tmp_path)
