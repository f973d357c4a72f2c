"""Preflight beside the bare tokenizer over the same text: time as a ratio, and memory at two sizes.

    python benchmarks/preflight/measure.py --model FOLDER

It needs what the trainer image has (no torch is used) and a folder with a tokenizer and a chat template. Rows are made
of Python's own documentation. Each figure is of a process of its own; the result is JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rows import write_rows

SIZES = (10_000, 200_000)
BATCH = 1000


def main() -> None:
    """Run all measurements, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["bare", "preflight"])
    parser.add_argument("--rows", type=Path)
    options = parser.parse_args()
    if options.one is not None:
        measured = {"bare": bare, "preflight": preflight}[options.one](options.model, options.rows)
        print(json.dumps(measured | {"peakMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([compare(options.model, Path(folder), size, options.rounds) for size in SIZES], indent=2))


def compare(model: Path, folder: Path, size: int, rounds: int) -> dict[str, object]:
    """Both ways over *size* rows, in turns."""
    rows = folder / f"{size}.jsonl"
    write_rows(rows, size)
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "preflight": []}
    for _ in range(rounds):
        for name, results in runs.items():
            results.append(call(name, model, rows))
    figures = {
        kind: {name: min(result[kind] for result in results) for name, results in runs.items()}
        for kind in ("seconds", "cpuSeconds")
    }
    return {
        "rows": size,
        "tokens": runs["preflight"][0]["tokens"],
        "sameTokens": runs["preflight"][0]["tokens"] == runs["bare"][0]["tokens"],
        **figures,
        "ratio": {kind: round(best["preflight"] / best["bare"], 3) for kind, best in figures.items()},
        "peakMiB": {name: max(result["peakMiB"] for result in results) for name, results in runs.items()},
    }


def call(name: str, model: Path, rows: Path) -> dict[str, float]:
    """One measurement in a process of its own."""
    argv = [sys.executable, __file__, "--model", str(model), "--rows", str(rows), "--one", name]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
    output = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    return measured


class Clock:
    """Time on the wall and of the processors, all threads together; the second hardly minds who else works here."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """What has passed."""
        return {
            "seconds": round(time.perf_counter() - self._began[0], 2),
            "cpuSeconds": round(time.process_time() - self._began[1], 2),
        }


def bare(model: Path, rows: Path) -> dict[str, float]:
    """The tokenizer alone: the texts are read and rendered before the clock starts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    with rows.open() as file:
        texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in file]
    clock, tokens = Clock(), 0
    for start in range(0, len(texts), BATCH):
        encoded = tokenizer(texts[start : start + BATCH], add_special_tokens=False)
        tokens += sum(len(ids) for ids in encoded["input_ids"])
    return clock.read() | {"tokens": tokens}


def preflight(model: Path, rows: Path) -> dict[str, float]:
    """All that preflight does with rows, from the file to the findings."""
    from transformers import AutoTokenizer

    from largeforge.api.run import RowSource
    from largeforge.jobs.examine import Examiner
    from largeforge.jobs.sources import open_source
    from largeforge.jobs.tokens import Encoder

    tokenizer = AutoTokenizer.from_pretrained(model)
    config = _config(model, rows)
    clock = Clock()
    source = open_source(RowSource(uri=f"pvc://data/{rows.name}", field="spec.datasets[0]", path=str(rows)), None)
    encoder = Encoder(tokenizer, source.kind)
    findings = Examiner(config, encoder, 2048, lambda _: None).examine([source], None)
    return clock.read() | {"tokens": int(findings.lengths.sum() + findings.eval_lengths.sum())}


def _config(model: Path, rows: Path):  # noqa: ANN202 - a RunConfig, imported late
    from largeforge.api.run import RunConfig

    training = {"max_steps": 1, "num_train_epochs": None, "learning_rate": 1e-4, "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 1, "max_length": 2048, "precision": "FP32", "seed": 1}  # fmt: skip
    return RunConfig.model_validate({
        "namespace": "bench", "job": "bench", "run": 1, "digest": "0" * 64, "method": "SFT",
        "base": {"uri": "pvc://models/base", "field": "spec.base.uri", "path": str(model)},
        "datasets": [{"uri": f"pvc://data/{rows.name}", "field": "spec.datasets[0]", "path": str(rows)}],
        "eval_split_ratio": 0.02, "lora": None, "training": training,
        "compute": {"processes": 1, "use_cpu": True, "strategy": "Single"},
        "checkpoint": {"path": "/nowhere", "uri": "pvc://out", "every_steps": 1, "every_minutes": None, "keep": 1,
                       "resume": True},
        "output_uri": "pvc://out", "output_path": "/nowhere",
    })  # fmt: skip


if __name__ == "__main__":
    main()
