"""Our training beside a plain TRL script with the same arguments, in turns: time, CPU time, peak memory.

    python benchmarks/training/measure.py --model FOLDER

It runs with an interpreter that has what the trainer image has, on one rank of the CPU. Each run is a process of its
own; the result is JSON on stdout, a line of progress for each run goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rows import write_rows

ROWS = 400
_RUNTIME = re.compile(r"'train_runtime': '?([0-9.]+)")
_LOSS = re.compile(r"'train_loss': '?([0-9.]+)")


def main() -> None:
    """Run both in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a model and its tokenizer")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of 8 samples (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        rows = folder / "rows.jsonl"
        write_rows(rows, ROWS)
        results: dict[str, list[dict[str, float]]] = {"plain": [], "largeforge": []}
        for number in range(options.rounds):
            for name, measured in results.items():
                measured.append(MEASURES[name](options.model, rows, folder / f"{name}-{number}", options.steps))
                print(f"round {number + 1} {name}: {measured[-1]}", file=sys.stderr, flush=True)
    print(json.dumps(summary(results), indent=2))


def summary(results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The medians of each, and ours over the plain script's."""
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
        for name, runs in results.items()
    }
    shared = ("seconds", "cpuSeconds", "trainSeconds", "peakMiB")
    ratio = {key: round(medians["largeforge"][key] / medians["plain"][key], 3) for key in shared}
    return {**medians, "ratio": ratio}


def plain(model: Path, rows: Path, out: Path, steps: int) -> dict[str, float]:
    """The plain script."""
    script = Path(__file__).with_name("plain.py")
    spent, output = timed([sys.executable, str(script), str(model), str(rows), str(out), str(steps)])
    trained, loss = _RUNTIME.search(output), _LOSS.search(output)
    if trained is None or loss is None:
        raise SystemExit(f"the plain script told no train_runtime:\n{output[-2000:]}")
    return {**spent, "trainSeconds": float(trained[1]), "trainLoss": float(loss[1])}


def largeforge(model: Path, rows: Path, out: Path, steps: int) -> dict[str, float]:
    """Our entry, as torchrun starts it for one rank."""
    out.mkdir()
    path = out / "config.json"
    path.write_text(json.dumps(config(model, rows, out, steps)))
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    spent, _ = timed([sys.executable, "-m", "largeforge.jobs.finetune", str(path)], rank)
    (result,) = out.glob("bench-*/result.json")
    values = {m["name"]: float(m["value"]) for m in json.loads(result.read_bytes())["metrics"]}
    return {
        **spent,
        "trainSeconds": values["train_seconds"],
        "trainLoss": values["train_loss"],
        "tokensPerSecond": values["tokens_per_second"],
        "dataShare": values["data_share"],
    }


def timed(argv: list[str], more: dict[str, str] | None = None) -> tuple[dict[str, float], str]:
    """What it took, of which a busy machine changes the CPU time least, and what it printed.

    A run that fails ends the measurement.
    """
    began = time.perf_counter()
    child = subprocess.Popen(
        argv, env={**os.environ, **(more or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output = child.stdout.read() if child.stdout is not None else ""
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{argv[1:3]} ended with {os.waitstatus_to_exitcode(status)}:\n{output[-3000:]}")
    seconds = time.perf_counter() - began
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": round(seconds, 2), "cpuSeconds": round(cpu, 2), "peakMiB": usage.ru_maxrss >> 10}, output


def config(model: Path, rows: Path, out: Path, steps: int) -> dict[str, Any]:
    """The RunConfig with the arguments of `plain.py`."""
    return {
        "namespace": "bench", "job": "bench", "run": 1, "digest": "0" * 64, "method": "SFT",
        "base": {"uri": "pvc://models/base", "field": "spec.base.uri", "path": str(model)},
        "datasets": [{"uri": "pvc://data/rows.jsonl", "field": "spec.datasets[0]", "path": str(rows)}],
        "eval_split_ratio": 0,
        "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["all-linear"]},
        "training": {
            "max_steps": steps, "num_train_epochs": None, "learning_rate": 2e-4, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2, "max_length": 256, "precision": "FP32", "gradient_checkpointing": False,
            "seed": 42,
        },
        "compute": {"processes": 1, "use_cpu": True, "strategy": "Single"},
        "checkpoint": {"path": str(out), "uri": "pvc://out", "every_steps": None, "every_minutes": 30, "keep": 1,
                       "resume": True},
        "output_uri": "pvc://out", "output_path": str(out),
    }  # fmt: skip


MEASURES = {"plain": plain, "largeforge": largeforge}

if __name__ == "__main__":
    main()
