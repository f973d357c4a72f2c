"""What the classifier costs: latency of each part, learning, memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import labelled
import numpy as np
from labelled import Draw
from subjects import Memory

from largeforge.router.classifier import ExpertText, learn
from largeforge.router.classify import Matcher, Pattern
from largeforge.router.embedding import Embedder, whole_words

REPEATS = 300
QUESTION = "Which customers bought more than ten items last year, and who of them never came back?"
LENGTHS = {"short": 0, "1 KB": 1024, "16 KB": 16_384}
TOKENS = (16, 64)
EXPERTS, EXAMPLES = 50, 200


def latency(examples: Mapping[str, Sequence[str]], model: Path) -> dict[str, dict[str, float]]:
    """Microseconds of the processor, one thread, by part and length of the text; no text is asked twice in a row.

    All of it is computing, so on a machine that is idle the time on the wall is the same.
    """
    found: dict[str, dict[str, float]] = {}
    embed = Embedder(model)
    matcher = Matcher({f"expert-{n}": patterns() for n in range(10)})
    experts = [ExpertText(name, examples=tuple(texts)) for name, texts in examples.items()]
    classifier = learn(experts, embed, words=whole_words(model))
    for length, characters in LENGTHS.items():
        texts = [_text(characters, number) for number in range(32)]
        found[f"keywords, 200 patterns: {length}"] = _timed(matcher.scores, texts)
        found[f"cheap part: {length}"] = _timed(lambda text: classifier.look([text]), texts)
        found[f"with the embedding where it is wanted: {length}"] = _timed(
            lambda text: classifier.decide([text], embed=embed), texts
        )
    for tokens in TOKENS:
        texts = [f"{number} " + "word " * (tokens - 3) for number in range(10)]
        found[f"one embedding: {tokens} tokens"] = _timed(embed.one, texts)
    return found


def learning(model: Path) -> dict[str, float]:
    """Learning from 50 experts x 200 examples, cold and with the embeddings of them at hand: wall and processor."""
    return _child("learning", model)


def memory(model: Path) -> dict[str, float]:
    """MiB of a process that has learnt from 12 experts x 100 examples, with the model and without one."""
    return {"with the model": _child("memory", model)["MiB"], "without": _child("memory")["MiB"]}


def patterns() -> list[Pattern]:
    """20 patterns of one expert, words, phrases and literals."""
    words = [Pattern(f"word{n}", "Word", 1.0) for n in range(10)] + [Pattern("customers", "Word", 1.0)]
    phrases = [Pattern(f"more {word}", "Word", 1.0) for word in ("or less", "than one", "of them", "like it", "often")]
    literals = [Pattern(text, "Literal", 0.5) for text in ("c++", ".net", "#include", "std::")]
    return words + phrases + literals


def many() -> list[ExpertText]:
    """50 experts with 200 examples each, of the set's templates with more of their values."""
    pages = [labelled.read(path) for path in sorted((labelled.HERE / "written").glob("*.txt")) if path.stem != "pastes"]
    found = []
    for number in range(EXPERTS):
        page = pages[number % len(pages)]
        draw = Draw(f"expert {number}")
        texts = [labelled.filled(draw.one(page.templates), page.slots, draw) for _ in range(EXAMPLES)]
        # One that is there twice, being without slots, is told apart: what is learnt is learnt once.
        examples = tuple(f"{text} ({number}-{at})" for at, text in enumerate(texts))
        found.append(ExpertText(f"expert-{number:02}", examples=examples))
    return found


def _text(characters: int, number: int) -> str:
    question = f"{QUESTION} (number {number})"
    return f"{question}\n\n{labelled.pasted(Draw(str(number)), characters)}" if characters else question


def _timed(call: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    seconds = []
    for number in range(REPEATS):
        text = texts[number % len(texts)]
        began = time.thread_time()
        call(text)
        seconds.append(time.thread_time() - began)
    return {"p50": round(float(np.quantile(seconds, 0.5)) * 1e6, 1),
            "p99": round(float(np.quantile(seconds, 0.99)) * 1e6, 1)}  # fmt: skip


def _child(part: str, *model: Path) -> dict[str, float]:
    argv = [sys.executable, __file__, part, *map(str, model)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as in the router's image
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _learning(model: Path) -> dict[str, float]:
    experts, embed = many(), Memory(Embedder(model))
    return {
        **_seconds("cold", lambda: learn(experts, embed)),
        **_seconds("embeddings at hand", lambda: learn(experts, embed)),
        "embeddings": len(embed.known),
        "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _memory(*model: Path) -> dict[str, float]:
    embed = Embedder(*model) if model else None
    experts = [ExpertText(expert.name, examples=expert.examples[:100]) for expert in many()[:12]]
    learn(experts, embed).decide([QUESTION], embed=embed)
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(line for line in status if line.startswith("VmRSS"))
    return {"MiB": round(int(resident.split()[1]) / 1024, 1)}


def _seconds(what: str, call: Callable[[], object]) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return {
        f"seconds, {what}": round(time.perf_counter() - wall, 2),
        f"processor seconds, {what}": round(time.process_time() - processor, 2),
    }


if __name__ == "__main__":
    part, *folders = sys.argv[1:]
    print(json.dumps({"learning": _learning, "memory": _memory}[part](*map(Path, folders))))
