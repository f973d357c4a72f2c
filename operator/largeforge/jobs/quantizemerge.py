"""An adapter merged into its base, in 16 bit, and compared with base plus adapter. Torch is imported inside."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from largeforge.api.quantize import QuantizeConfig
from largeforge.api.quantizejobstatus import SourceRecord
from largeforge.api.run import AdapterSource
from largeforge.jobs import artifact, models, quantizing, weights, whole
from largeforge.jobs.errors import BaseInvalidError
from largeforge.jobs.models import Base
from largeforge.jobs.quantizestep import say

RECORD = "merged.json"
"""Written last into the merged model's folder: what its weights' digest is."""
COMPARED_TOKENS = 512
"""Tokens that both are asked for: enough to see a wrong merge, few enough for a large model on a CPU."""
WARN_PERCENT, FAIL_PERCENT = 1.0, 5.0
"""By how much the merged model's perplexity may differ from base plus adapter's. Rounding to 16 bit is far below."""


def merged(
    config: QuantizeConfig, base: Base, *, base_digest: str, windows: Sequence[Sequence[int]]
) -> tuple[SourceRecord, list[str]]:
    """Merge the adapter of *config*, unless an earlier preflight has; the record of the model, and what to know."""
    adapter = config.adapter
    if adapter is None:
        raise AssertionError("there is an adapter to merge")
    models.check_adapter(adapter, None)
    identity = hashlib.sha256(f"{base_digest}\n{_adapter_digest(adapter)}".encode()).hexdigest()
    name = f"{artifact.named(config.job, identity)}-source"
    target = Path(config.output_path) / name
    warnings: list[str] = []
    if not is_whole(target):

        def fill(folder: Path) -> None:
            warnings.extend(_merge(base, adapter, folder, windows))

        artifact.clear_leftovers(target)
        say(f"merging {adapter.uri} into {base.uri}")
        artifact.place(target, fill, attempt=secrets.token_hex(4))
    settings = json.loads((target / "config.json").read_bytes())
    files = weights.safetensors_files(target)
    record = SourceRecord(
        uri=f"{config.output_uri}/{name}",
        digest=json.loads((target / RECORD).read_bytes())["digest"],
        size_bytes=sum(file.stat().st_size for file in files),
        architecture=architecture(settings),
        dtype=dtype(settings),
        merged=True,
    )
    return record, warnings


def is_whole(folder: Path) -> bool:
    """Whether *folder* holds a merged model with all its bytes."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return bool(record["digest"] == weights.digest(weights.safetensors_files(folder)))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def architecture(config: dict[str, Any]) -> str:
    """The class that transformers knows a model of this `config.json` as."""
    named = config.get("architectures")
    return str(named[0])[:128] if isinstance(named, list) and named else ""


def dtype(config: dict[str, Any]) -> str:
    """The type of the weights, as its `config.json` says."""
    return str(config.get("dtype") or config.get("torch_dtype") or "")[:32]


def judge(before: float, after: float, adapter: AdapterSource) -> list[str]:
    """Raise where the merged model is another one than base plus adapter; return what the user should know."""
    percent = 100 * (after / before - 1) if before > 0 and math.isfinite(after) else math.inf
    text = f"{adapter.uri}: merged, its perplexity is {after:.4g}, and {before:.4g} as base plus adapter"
    if not math.isfinite(percent) or abs(percent) > FAIL_PERCENT:
        raise BaseInvalidError(f"{text}; it does not survive the merge in 16 bit: train it again", field=adapter.field)
    return [text] if abs(percent) > WARN_PERCENT else []


def _adapter_digest(adapter: AdapterSource) -> str:
    files = weights.safetensors_files(Path(adapter.path))
    if not files:
        raise BaseInvalidError(f"{adapter.uri}: has no *.safetensors; name an adapter's folder", field=adapter.field)
    return weights.digest(files)


def _merge(base: Base, adapter: AdapterSource, folder: Path, windows: Sequence[Sequence[int]]) -> list[str]:
    perplexities: list[float] = []
    whole.merge(base, Path(adapter.path), folder, look=lambda model: perplexities.append(perplexity(model, windows)))
    quantizing.copy_tokenizer(base, folder)
    digest = weights.digest(weights.safetensors_files(folder))
    (folder / RECORD).write_text(json.dumps({"digest": digest, "adapter": adapter.uri}) + "\n")
    before, after = perplexities
    return judge(before, after, adapter)


def perplexity(model: Any, windows: Sequence[Sequence[int]]) -> float:
    """The perplexity of *model* on the first `COMPARED_TOKENS` of *windows*, by transformers."""
    import torch

    loss, predicted = 0.0, 0
    with torch.inference_mode():
        for window in windows:
            ids = torch.tensor([list(window[: COMPARED_TOKENS - predicted])])
            if ids.shape[1] < 2:
                break
            logits = model.eval()(input_ids=ids).logits[0, :-1].float()
            loss += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            predicted += ids.shape[1] - 1
    return math.exp(loss / predicted)
