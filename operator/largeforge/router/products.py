"""The dot products of texts' terms.

Terms are few in a text and many in all, so most products are of nothing. The terms that many texts share are multiplied
as a matrix; the others by the pairs of texts that have them. Both always add up in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from largeforge.router.terms import Floats, Indices

Vector = tuple[Indices, Floats]
"""The indices of a text's terms, and their values."""
Vectors = Sequence[Vector]

COMMON = 512
"""Terms that are multiplied as a matrix. 256 and 1,024 take as long, for 50 experts with 200 examples each."""
AT_ONCE = 512
"""Texts; what stands in memory for them fits a processor's cache, however many there are."""


def products(vectors: Vectors, marks: Indices) -> Floats:
    """The dot product of each text's terms with those of each of the texts *marks*."""
    of_marks = _Marks([vectors[mark] for mark in marks], np.concatenate([at for at, _ in vectors]))
    found = np.empty((len(vectors), len(marks)), dtype=np.float32)
    for begin in range(0, len(vectors), AT_ONCE):
        found[begin : begin + AT_ONCE] = of_marks.times(vectors[begin : begin + AT_ONCE])
    found[marks, np.arange(len(marks))] = 1.0  # their length
    return found


def among(vectors: Vectors) -> Floats:
    """As `products` of each with each, faster for some hundreds of texts."""
    known, columns = np.unique(np.concatenate([at for at, _ in vectors]), return_inverse=True)
    dense = np.zeros((len(vectors), len(known)), dtype=np.float32)
    dense[_owners(vectors), columns] = np.concatenate([values for _, values in vectors])
    found: Floats = dense @ dense.T
    return found


class _Marks:
    """The texts that others are multiplied with, by their terms; *every* term of those others makes some common."""

    def __init__(self, marks: Vectors, every: Indices) -> None:
        terms = int(every.max()) + 1
        at = np.concatenate([at for at, _ in marks])
        order = np.argsort(at, kind="stable")
        at, self._places = at[order], _owners(marks)[order]
        self._values = np.concatenate([values for _, values in marks])[order]
        self._counts = np.bincount(at, minlength=terms)
        self._begins = np.cumsum(self._counts) - self._counts
        self._size = len(marks)
        pairs = self._counts * np.bincount(every, minlength=terms)
        common = np.argsort(-pairs, kind="stable")[:COMMON]
        self._column = np.full(terms, -1)
        self._column[common] = np.arange(len(common))
        self._matrix = np.zeros((len(common), len(marks)), dtype=np.float32)
        columns = self._column[at]
        shared = columns >= 0
        self._matrix[columns[shared], self._places[shared]] = self._values[shared]

    def times(self, texts: Vectors) -> Floats:
        """A row for each of *texts*."""
        at, values = np.concatenate([at for at, _ in texts]), np.concatenate([values for _, values in texts])
        owners, columns = _owners(texts), self._column[at]
        shared = columns >= 0
        dense = np.zeros((len(texts), len(self._matrix)), dtype=np.float32)
        dense[owners[shared], columns[shared]] = values[shared]
        found: Floats = dense @ self._matrix + self._by_pairs(at[~shared], values[~shared], owners[~shared], len(texts))
        return found

    def _by_pairs(self, at: Indices, values: Floats, owners: Indices, texts: int) -> Floats:
        counts = self._counts[at]
        begins = self._begins[at] - np.cumsum(counts) + counts
        pairs = np.repeat(begins, counts) + np.arange(counts.sum())
        places = np.repeat(owners * self._size, counts) + self._places[pairs]
        sums = np.bincount(places, np.repeat(values, counts) * self._values[pairs], minlength=texts * self._size)
        return sums.reshape(texts, self._size).astype(np.float32)


def _owners(vectors: Vectors) -> Indices:
    """Of each term the text that has it."""
    return np.repeat(np.arange(len(vectors)), [len(at) for at, _ in vectors])
