"""Products of texts' terms, beside those of the vectors written out."""

from __future__ import annotations

import numpy as np
import pytest

from largeforge.router import products as module
from largeforge.router.products import Vectors, among, products

TERMS, TEXTS = 40, 30


def texts(seed: int) -> Vectors:
    """Vectors of length one, of which some terms are in nearly all and others in one."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(TEXTS):
        at = np.flatnonzero(rng.random(TERMS) < np.linspace(0.9, 0.02, TERMS))
        at = at if len(at) else np.array([0])
        values = rng.random(len(at)).astype(np.float32) + np.float32(0.1)
        found.append((at, values / np.sqrt(values @ values)))
    return found


def written_out(vectors: Vectors):
    dense = np.zeros((len(vectors), TERMS))
    for row, (at, values) in enumerate(vectors):
        dense[row, at] = values
    return dense


@pytest.mark.parametrize(("common", "at_once"), [(0, 7), (5, 7), (5, 100), (1000, 30)])
def test_common_and_rare_terms_together_are_the_product(monkeypatch: pytest.MonkeyPatch, common: int, at_once: int):
    monkeypatch.setattr(module, "COMMON", common)
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    for seed in range(3):
        vectors, marks = texts(seed), np.array([3, 4, 11, 29])
        dense = written_out(vectors)
        np.testing.assert_allclose(products(vectors, marks), dense @ dense[marks].T, atol=1e-6)


def test_each_with_each_is_the_same():
    vectors = texts(7)
    np.testing.assert_allclose(among(vectors), products(vectors, np.arange(TEXTS)), atol=1e-6)


def test_a_term_that_no_mark_has_is_no_product():
    vectors = [(np.array([0]), np.ones(1, np.float32)), (np.array([5]), np.ones(1, np.float32))]
    assert products(vectors, np.array([0])).tolist() == [[1.0], [0.0]]
