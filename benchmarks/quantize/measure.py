"""Each method of a QuantizeJob: time, memory, size, perplexity; beside a plain llm-compressor script on the same text.

    python benchmarks/quantize/measure.py --model FOLDER [--engine PYTHON]

It runs with an interpreter that has what the quantizer image has; *PYTHON* is one that has the engine's, and without it
no perplexity is measured. Each run is a process of its own; the result is JSON on stdout, a line for each on stderr.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from largeforge.api.quantize import CALIBRATION_FILE, EvaluateConfig, QuantizeConfig, QuantizeResult

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rows import write_rows

METHODS = ("AWQ", "GPTQ", "W8A8", "FP8Dynamic")
ROWS = 400
PORT = 18977
ENGINE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE",
          "TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a model and its tokenizer")
    parser.add_argument("--engine", type=Path, help="an interpreter with vLLM")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--samples", type=int, default=16, help="calibration samples (default: 16)")
    parser.add_argument("--length", type=int, default=512, help="tokens of the longest (default: 512)")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as the image has it; for both
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", ROWS)
        step = Steps(options, folder)
        prepared = step.preflight()
        before = step.perplexity(options.model, prepared) if options.engine else None
        found = {method: measured(step, method, prepared, before) for method in options.methods}
    print(json.dumps({"model": options.model.name, "perplexityBefore": before, "methods": found}, indent=2))


def measured(step: Steps, method: str, prepared: Any, before: float | None) -> dict[str, Any]:
    """One method by both, ours first."""
    ours = step.ours(method, prepared)
    plain = step.plain(method, prepared)
    folder = ours.pop("folder")
    after = step.perplexity(folder, prepared) if before is not None else None
    result = {
        "largeforge": ours,
        "plain": plain,
        "ratioOfSeconds": round(ours["seconds"] / plain["seconds"], 3),
        "ratioOfCpuSeconds": round(ours["cpuSeconds"] / plain["cpuSeconds"], 3),
        "sameBytes": ours["digest"] == plain["digest"],
        "sizeRatio": round(ours["weightBytes"] / size(step.options.model), 3),
        **({"perplexityAfter": after, "perplexityRatio": round(after / before, 4)} if after and before else {}),
    }
    print(f"{method}: {result}", file=sys.stderr, flush=True)
    return result


class Steps:
    """The steps of a job, each a process."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder

    def preflight(self) -> Any:
        """Check and prepare; the record."""
        return self._step(self._config("Preflight", METHODS))[0].prepared

    def ours(self, method: str, prepared: Any) -> dict[str, Any]:
        """*method* by our job, as its pod does it."""
        samples = prepared.calibration.digest if method != "FP8Dynamic" else None
        config = self._config("Quantize", [method])
        source = config.source.model_copy(update={"digest": prepared.source.digest})
        place = {"prepared_path": str(self._place(prepared.uri)), "prepared_digest": samples, "source": source}
        result, took = self._step(config.model_copy(update=place))
        folder = self._place(result.artifact.uri)
        return took | {"digest": result.artifact.digest, "weightBytes": size(folder), "folder": folder}

    def plain(self, method: str, prepared: Any) -> dict[str, Any]:
        """*method* by the plain script."""
        out = self.folder / f"plain-{method}"
        samples = self._place(prepared.uri) / CALIBRATION_FILE
        program = Path(__file__).with_name("plain.py")
        took = run([sys.executable, program, method, self.options.model, samples, out])
        return took | {"digest": digest(out), "weightBytes": size(out)}

    def perplexity(self, model: Path, prepared: Any) -> float:
        """By an engine that is started for it."""
        command = [self.options.engine, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
                   "--served-model-name", "model", "--host", "127.0.0.1", "--port", PORT, "--max-model-len", 520,
                   "--max-num-seqs", 8, "--enforce-eager", "--no-enable-prefix-caching"]  # fmt: skip
        config = EvaluateConfig(
            namespace="", job="bench", run=1, digest="", subject=model.name, field="", model_name="model",
            engine_url=f"http://127.0.0.1:{PORT}", prepared_path=str(self._place(prepared.uri)),
            windows_digest=prepared.windows_digest,
        )  # fmt: skip
        with (self.folder / "engine.log").open("w") as log:
            engine = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=os.environ | ENGINE)
            try:
                return float(self._step(config, module="evaluate")[0].evaluation.perplexity)
            finally:
                engine.terminate()
                engine.wait()

    def _step(self, config: Any, *, module: str = "quantize") -> tuple[Any, dict[str, float]]:
        path, message = self.folder / "config.json", self.folder / "message"
        path.write_text(config.model_dump_json(by_alias=True))
        took = run([sys.executable, "-m", f"largeforge.jobs.{module}", path, "--termination-log", message])
        return QuantizeResult.model_validate_json(message.read_bytes()), took

    def _place(self, uri: str) -> Path:
        return self.folder / "output" / uri.rpartition("/")[2]

    def _config(self, stage: str, methods: Any) -> QuantizeConfig:
        (self.folder / "output").mkdir(exist_ok=True)
        rows = {"uri": "pvc://d/rows.jsonl", "field": "rows", "path": str(self.folder / "rows.jsonl")}
        return QuantizeConfig.model_validate(
            {
                "stage": stage,
                "namespace": "", "job": "bench", "run": 1, "digest": "",
                "source": {"uri": "pvc://m/model", "field": "model", "path": str(self.options.model)},
                "methods": [
                    {
                        "field": method, "method": method, "engine": "LLMCompressor", "symmetric": method != "AWQ",
                        "group_size": self.options.group_size if method in ("AWQ", "GPTQ") else None,
                        "ignore": ["lm_head"], "digest": method,
                    }
                    for method in methods
                ],
                "calibration": {
                    "datasets": [rows], "num_samples": self.options.samples, "max_length": self.options.length,
                    "seed": 42, "apply_chat_template": True,
                },
                "evaluation": {"dataset": None, "window_tokens": 512, "max_windows": 64},
                "prepared_path": None, "output_uri": "pvc://o/out", "output_path": str(self.folder / "output"),
                "use_cpu": True,
            }
        )  # fmt: skip


def run(command: list[Any], more: dict[str, str] | None = None) -> dict[str, float]:
    """Run *command*; what it took. One that fails ends the measurement."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [str(part) for part in command], stdout=said, stderr=said, env=os.environ | (more or {})
        )
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            said.seek(0)
            sys.exit(f"{command[1:4]} ended with {os.waitstatus_to_exitcode(status)}:\n{said.read()[-3000:].decode()}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpuSeconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peakMiB": usage.ru_maxrss >> 10,
    }


def size(folder: Path) -> int:
    """Bytes of its weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def digest(folder: Path) -> str:
    """SHA-256 over its weights."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


if __name__ == "__main__":
    main()
