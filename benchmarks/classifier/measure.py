"""The router's classifier beside nearest-example cosine and TF-IDF, on the labelled set, in one run.

    .venv/bin/python benchmarks/classifier/measure.py --out FOLDER

The embeddings are those of the router's image, which `make setup` brings; --model names another folder with
`model.onnx` and `tokenizer.json`. The result is JSON and a picture; README.md says what each figure is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import labelled
import numpy as np
from costs import latency, learning, memory
from labelled import Draw, Row
from picture import draw
from subjects import Embed, Judge, Memory, Verdict, bag_of_words, largeforge, nearest_example

from largeforge.router.embedding import Embedder, whole_words

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev import embedding

SIZES = (5, 10, 20, 100)
ROUNDS = {5: 3, 10: 3, 20: 3, 100: 2}
"""Other examples in each; few examples are good or bad luck."""
FALSE_ABSTENTION = 0.03
PASTE = 2048


def main() -> None:
    """Measure, and write what was found after each part."""
    rows = labelled.load()
    parts: dict[str, Callable[[Path, Memory], Any]] = {
        "quality": lambda _, embed: {str(size): quality(rows, size, embed) for size in SIZES},
        "robustness": lambda _, embed: robustness(rows, embed),
        "latency": lambda model, _: latency(chosen(rows, 100, 0), model),
        "learning": lambda model, _: learning(model),
        "memory": lambda model, _: memory(model),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the folder of another embedding model")
    parser.add_argument("--out", type=Path, help="where result.json and result.svg are written")
    parser.add_argument("--only", nargs="+", choices=parts, metavar="PART", help=", ".join(parts))
    options = parser.parse_args()
    model = options.model or embedding.model()
    embed = Memory(Embedder(model), whole_words(model))
    result: dict[str, Any] = {}
    for part in options.only or parts:
        result[part] = parts[part](model, embed) | {"load": round(os.getloadavg()[0], 1)}
        print(json.dumps({part: result[part]}, indent=1, ensure_ascii=False), flush=True)
        if options.out:
            _write(options.out, result)


def _write(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if "quality" in result:
        (folder / "result.svg").write_text(draw({k: v for k, v in result["quality"].items() if k != "load"}))


def quality(rows: Sequence[Row], size: int, embed: Embed) -> dict[str, dict[str, Any]]:
    """Of each subject with *size* examples an expert, in per cent: the mean of the rounds."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    for number in range(ROUNDS[size]):
        for name, judge in subjects(chosen(rows, size, number), embed).items():
            rounds.setdefault(name, []).append(scores(rows, judge))
    return {name: _means(found) for name, found in rounds.items()}


def subjects(examples: dict[str, list[str]], embed: Embed) -> dict[str, Judge]:
    """All that are measured, with the same examples and the same embeddings."""
    return {
        "largeforge": largeforge(examples, embed),
        "largeforge without a model": largeforge(examples, None),
        "nearest example": nearest_example(examples, embed),
        "TF-IDF": bag_of_words(examples),
    }


def robustness(rows: Sequence[Row], embed: Embed) -> dict[str, dict[str, float]]:
    """With 100 examples an expert, in per cent: what a change of a plain question does."""
    plain = [row for row in rows if row.split == "test" and row.expert and row.style == "plain"]
    changes: dict[str, Callable[[str, Draw], str]] = {
        "lower case": lambda text, _: text.lower(),
        "upper case": lambda text, _: text.upper(),
        "politeness": labelled.polite,
        "one typo": labelled.misspelt,
    }
    pastes: dict[str, Callable[[str, Draw], str]] = {
        "2 KB before, blank line": lambda text, draw: f"{labelled.pasted(draw, PASTE)}\n\n{text}",
        "2 KB before": lambda text, draw: f"{labelled.pasted(draw, PASTE)}\n{text}",
        "2 KB after, blank line": lambda text, draw: f"{text}\n\n{labelled.pasted(draw, PASTE)}",
        "2 KB after": lambda text, draw: f"{text}\n{labelled.pasted(draw, PASTE)}",
    }
    found: dict[str, dict[str, float]] = {}
    for name, judge in subjects(chosen(rows, 100, 0), embed).items():
        before = [judge(row.text) for row in plain]
        figures = {"accuracy": _share(v.best == row.expert for v, row in zip(before, plain, strict=True))}
        for change, apply in {**changes, **pastes}.items():
            after = [judge(apply(row.text, Draw(f"{change} {i}"))) for i, row in enumerate(plain)]
            if change in changes:
                figures[f"flips: {change}"] = _share(a.best != b.best for a, b in zip(before, after, strict=True))
                figures[f"other answer: {change}"] = _share(
                    a.expert != b.expert for a, b in zip(before, after, strict=True)
                )
            else:
                right = _share(v.best == row.expert for v, row in zip(after, plain, strict=True))
                figures[f"points lost: {change}"] = round(figures["accuracy"] - right, 1)
        found[name] = figures
    return found


def scores(rows: Sequence[Row], judge: Judge) -> dict[str, Any]:
    """What *judge* makes of the test rows of *rows*, in per cent."""
    inside = [row for row in rows if row.split == "test" and row.expert]
    outside = [row for row in rows if row.expert is None]
    verdicts = [judge(row.text) for row in inside]
    others = [judge(row.text) for row in outside]
    right = [verdict.best == row.expert for verdict, row in zip(verdicts, inside, strict=True)]
    figures: dict[str, Any] = {
        "accuracy": _share(right),
        "oosRecallAt3": recall(verdicts, others),
        "falseAbstention": _share(verdict.expert is None for verdict in verdicts),
        "oosRecall": _share(verdict.expert is None for verdict in others),
        "embedded": _share(verdict.embedded for verdict in verdicts),
    }
    for style in sorted({row.style for row in inside}):
        figures[f"accuracy: {style}"] = _share(r for r, row in zip(right, inside, strict=True) if row.style == style)
    return figures


def recall(inside: Sequence[Verdict], outside: Sequence[Verdict]) -> float:
    """Of the rows for none, the share below the confidence that all but 3 % of the others reach."""
    threshold = np.quantile([verdict.confidence for verdict in inside], FALSE_ABSTENTION)
    return _share(verdict.confidence < threshold for verdict in outside)


def chosen(rows: Sequence[Row], size: int, number: int) -> dict[str, list[str]]:
    """*size* examples of each expert, others in each round."""
    found: dict[str, list[str]] = {}
    for expert in sorted({row.expert for row in rows if row.expert}):
        texts = [row.text for row in rows if row.split == "learn" and row.expert == expert]
        found[expert] = Draw(f"{expert} {number}").order(texts)[:size]
    return found


def _means(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {name: round(float(np.mean([each[name] for each in found])), 1) for name in found[0]}
    return means | {"accuracyOfRounds": [each["accuracy"] for each in found]}


def _share(found: Any) -> float:
    values = list(found)
    return round(100 * sum(values) / len(values), 1)


if __name__ == "__main__":
    main()
