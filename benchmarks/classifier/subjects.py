"""What is measured side by side: the router's classifier, and two that anyone would write first."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from largeforge.router.classifier import ExpertText, learn

Floats = npt.NDArray[np.floating[Any]]
Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
Examples = Mapping[str, Sequence[str]]
RIDGE = 0.15


class Verdict(NamedTuple):
    """What one of them says of a text."""

    best: str
    """The likeliest expert, also where the text seems to be nobody's."""
    confidence: float
    expert: str | None
    """Who gets it; None where it seems to be nobody's. Only the router's classifier has a threshold of its own."""
    embedded: bool = False


Judge = Callable[[str], Verdict]


class Memory:
    """An embedder that remembers, since each round asks for the same texts."""

    def __init__(self, embed: Embed, words: Sequence[str] = ()) -> None:
        self._embed = embed
        self.words = words
        self.known: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """A row for each of *texts*."""
        for text in texts:
            if text not in self.known:
                self.known[text] = self._embed([text])[0]
        return np.array([self.known[text] for text in texts])


def largeforge(examples: Examples, embed: Embed | None) -> Judge:
    """The router's classifier, asked about conversations of one message."""
    experts = [ExpertText(name, examples=tuple(texts)) for name, texts in examples.items()]
    classifier = learn(experts, embed, words=getattr(embed, "words", ()))

    def judge(text: str) -> Verdict:
        choice = classifier.decide([text], embed=embed)
        ranked = sorted(choice.parts, key=lambda name: (-choice.parts[name].total, name))
        best = choice.expert or next(iter(ranked), min(examples))
        score = choice.parts[best].score if best in choice.parts else 0.0
        return Verdict(best, score, choice.expert, choice.embedded)

    return judge


def nearest_example(examples: Examples, embed: Embed) -> Judge:
    """The expert of the example with the highest cosine: what most semantic routers do. Texts go in as they are."""
    owners = [name for name, texts in examples.items() for _ in texts]
    rows = embed([text for texts in examples.values() for text in texts])

    def judge(text: str) -> Verdict:
        cosines = rows @ embed([text])[0]
        at = int(cosines.argmax())
        return Verdict(owners[at], float(cosines[at]), owners[at], embedded=True)

    return judge


def bag_of_words(examples: Examples) -> Judge:
    """TF-IDF of words, pairs of words and runs of 2 to 5 characters, and a linear classifier (ridge) over it."""
    names = list(examples)
    texts = [(column, text) for column, each in enumerate(examples.values()) for text in each]
    counts = [_terms(text) for _, text in texts]
    documents = Counter(term for found in counts for term in found)
    index = {term: at for at, term in enumerate(documents)}
    rarity = np.array([math.log((1 + len(texts)) / (1 + count)) + 1 for count in documents.values()])

    def vector(found: Counter[str]) -> Floats:
        dense = np.zeros(len(index))
        for term, count in found.items():
            if term in index:
                dense[index[term]] = (1 + math.log(count)) * rarity[index[term]]
        return dense / max(float(np.linalg.norm(dense)), 1e-9)

    rows = np.array([vector(found) for found in counts])
    targets = np.eye(len(names))[[column for column, _ in texts]]
    weights = rows.T @ np.linalg.solve(rows @ rows.T + RIDGE * np.eye(len(rows)), targets)

    def judge(text: str) -> Verdict:
        scores = vector(_terms(text)) @ weights
        at = int(scores.argmax())
        return Verdict(names[at], float(scores[at]), names[at])

    return judge


def _terms(text: str) -> Counter[str]:
    words = re.findall(r"\w\w+", text.lower())
    found = Counter(words + [f"{a} {b}" for a, b in itertools.pairwise(words)])
    for word in words:
        padded = f" {word} "
        found.update(padded[at : at + n] for n in range(2, 6) for at in range(len(padded) - n + 1))
    return found
