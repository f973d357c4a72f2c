"""What is learnt from the experts' examples: which of them a text is like.

Two heads, both kernel ridge (`ridge`): the cheap one sees terms alone, the full one terms and the embedding of the
text. The cheap one decides where its lead is clear; so most texts are never embedded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from largeforge.router.products import Vector, Vectors
from largeforge.router.ridge import Calibration
from largeforge.router.spelling import Spelling
from largeforge.router.terms import Floats, Indices, Vocabulary
from largeforge.router.text import blocks

FEW = 8
"""Below so many examples an expert, terms are noise beside an embedding, and no lead is clear."""
TERMS_SHARE = 0.5
"""Of the terms' kernel beside that of the embeddings, once every expert has `MANY` examples; in proportion below."""
MANY = 50
NEAREST_SHARE = 0.5
"""What the nearest example of an expert adds to its score: the better confidence for what fits no expert."""
Embed = Callable[[Sequence[str]], Floats]
"""One row of length one for each canonical text. A text's row does not depend on the others."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one expert says of the texts that it wants."""

    expert: str
    examples: tuple[str, ...]
    negatives: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What its author should know of it, found before anything is learnt."""


@dataclass(frozen=True, slots=True, eq=False)
class Cheap:
    """The head that sees terms alone."""

    weights: Floats
    """A row for each term, a column for each expert."""
    worth: Calibration

    def raw(self, vectors: Vectors) -> Floats:
        """The score of each expert: that of the block that speaks most for it."""
        found: Floats = np.max([weighted(vector, self.weights) for vector in vectors], axis=0)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Full:
    """The head that sees embeddings too."""

    weights: Floats
    """As the cheap head's; without rows where terms do not count."""
    rows: Floats
    """Embeddings: those of each expert's examples together, behind them those that belong to nobody."""
    duals: Floats
    """What each row says of each expert."""
    starts: Indices
    """Where each expert's rows begin, and where the last one's end."""
    worth: Calibration

    def raw(self, vectors: Vectors, embeddings: Sequence[Floats]) -> Floats:
        """The score of each expert: that of the block that speaks most for it."""
        found: Floats = np.max([self._of(*block) for block in zip(vectors, embeddings, strict=True)], axis=0)
        return found

    def _of(self, vector: Vector, embedding: Floats) -> Floats:
        cosines = self.rows @ embedding
        nearest = np.maximum.reduceat(cosines[: self.starts[-1]], self.starts[:-1])
        score = radial(cosines) @ self.duals + NEAREST_SHARE * nearest
        if len(self.weights):
            score += weighted(vector, self.weights)
        return score.astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What was learnt of all experts with examples; plain arrays, so that it is handed over and swapped in whole."""

    experts: tuple[str, ...]
    """By name; each is a column of the heads."""
    words: Vocabulary
    """The terms of both heads."""
    cheap: Cheap
    full: Full | None
    """None without an embedding model."""
    few: bool
    """Whether an expert has fewer than `FEW` examples."""
    taken_by: Indices
    """For each example, in the order of the experts, whose it would be if it had been left out."""
    spelling: Spelling | None = None
    """None where it is not known which words a language has."""

    def blocks(self, text: str) -> tuple[str, ...]:
        """`text.blocks`, with typos set right."""
        found = blocks(text)
        return found if self.spelling is None else tuple(map(self.spelling.corrected, found))

    def vectors(self, blocks: Sequence[str]) -> Vectors:
        """The terms of each block, which both heads see."""
        return tuple(map(self.words.vector, blocks))


def terms_share(fewest: int) -> float:
    """What the terms' kernel counts beside that of the embeddings, by the examples of the expert with the fewest."""
    return 0.0 if fewest < FEW else TERMS_SHARE * min(1.0, fewest / MANY)


def weighted(vector: Vector, weights: Floats) -> Floats:
    """The sum of the rows of *weights* that the terms of a text have."""
    at, values = vector
    found: Floats = values @ weights[at]
    return found


def radial(cosines: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The kernel of embeddings: 1 for equal ones."""
    found: npt.NDArray[Any] = np.exp(2 * (cosines - 1))
    return found
