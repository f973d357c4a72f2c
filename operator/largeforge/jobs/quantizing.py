"""One method applied to one model, from its folder to the files of the result. The libraries are imported inside."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.quantize import MethodSettings
from largeforge.jobs import artifact, basemodel, models, quantizeautoawq, quantizemends, quantizerecipes
from largeforge.jobs.errors import InvalidConfigError, RunError
from largeforge.jobs.models import Base
from largeforge.jobs.quantizescheme import blocks

Tell = Callable[[int, int], None]
"""Takes how many blocks are begun, and how many there are."""

LIBRARIES = ("llmcompressor", "compressed-tensors", "autoawq", "transformers", "torch")
_RECIPE = "recipe.yaml"
"""What llm-compressor writes beside the weights: the recipe that was run."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done."""

    base: Base
    settings: MethodSettings
    samples: Sequence[Sequence[int]]
    """Token ids; empty for a method that needs no data."""
    seed: int
    use_cpu: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it."""

    seconds: int
    peak_memory_bytes: int
    warnings: list[str]


def quiet_libraries() -> None:
    """Let the libraries speak of trouble only; what is called before they are imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("LLM_COMPRESSOR_LOG_LEVEL", "ERROR")
    models.quiet_libraries()


def quantize(work: Work, folder: Path, tell: Tell) -> Done:
    """Write the smaller model into *folder*."""
    import torch

    began = time.monotonic()
    torch.manual_seed(work.seed)
    if work.settings.engine == "AutoAWQ":
        warnings = quantizeautoawq.quantize(work, folder, tell, followed)
    else:
        warnings = _by_llm_compressor(work, folder, tell)
    copy_tokenizer(work.base, folder)
    return Done(round(time.monotonic() - began), peak_memory(use_cpu=work.use_cpu), warnings)


def _by_llm_compressor(work: Work, folder: Path, tell: Tell) -> list[str]:
    from llmcompressor import oneshot

    model = load(work.base)
    recipe = quantizerecipes.recipe(work.settings)
    with quantizemends.memory_without_cuda(), followed(model, tell):
        oneshot(
            model=model,
            # Nothing of ours is tokenized there; without one it would look for a tokenizer.
            tokenizer=models.load_tokenizer(work.base),
            recipe=recipe,
            dataset=batches(work.samples) if work.samples else None,
            num_calibration_samples=len(work.samples) or 1,
        )
    model.save_pretrained(folder, save_compressed=True)
    return _fallbacks(recipe)


def load(base: Base) -> Any:
    """The model in 16 bit, on the CPU: the libraries bring one block after the other to a GPU."""
    import torch

    dtype = models.stored_type(base)
    model = models.load_weights(base, torch.bfloat16 if dtype == torch.float32 else dtype)
    return model.eval()


def batches(samples: Sequence[Sequence[int]]) -> Any:
    """The samples as they are, each a batch: nothing is padded, cut or shuffled any more.

    The longest comes first, so that memory that does not suffice is known at once; it is the library's own order.
    """
    import torch

    ordered = sorted(samples, key=len, reverse=True)

    class Samples(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(ordered)

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = torch.tensor(ordered[index], dtype=torch.long)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return torch.utils.data.DataLoader(Samples(), batch_size=1, shuffle=False)


def _fallbacks(recipe: Sequence[Any]) -> list[str]:
    """What the library did instead, and says in its log alone: layers where GPTQ gave up and rounded."""
    names = [name for modifier in recipe for name in getattr(modifier, "_rtn_fallback_module_names", ())]
    if not names:
        return []
    return [f"GPTQ failed on {len(names)} layers, which were rounded instead, first {names[0]}; give more samples"]


@contextmanager
def followed(model: Any, tell: Tell) -> Iterator[None]:
    """Tell which block is worked on: the libraries call one after the other, each for all samples."""
    there = blocks(model)
    newest = -1

    def begun(index: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            nonlocal newest
            if index > newest:
                newest = index
                tell(index, len(there))

        return hook

    handles = [block.register_forward_pre_hook(begun(index)) for index, block in enumerate(there)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    tell(len(there), len(there))


def copy_tokenizer(base: Base, folder: Path) -> None:
    """The tokenizer as the model's authors wrote it, for the library's own writing changes its class; and the code of a
    model that brings its own, where that is trusted.
    """
    names: tuple[str, ...] = (*basemodel.TOKENIZER_FILES, "generation_config.json")
    if base.trusted["trust_remote_code"]:
        names += tuple(path.name for path in base.folder.glob("*.py"))
    artifact.copy_files(names, source=base.folder, to=folder, root=root_of(base))


def root_of(base: Base) -> Path:
    """The folder that links in *base* may lead into: that of the repository, in the hub's cache."""
    return base.folder.parents[1] if base.folder.parent.name == "snapshots" else base.folder


def check_library(settings: MethodSettings) -> None:
    """Raise where the image has not the library."""
    module = {"LLMCompressor": "llmcompressor", "AutoAWQ": "awq"}[settings.engine]
    if importlib.util.find_spec(module) is None:
        raise InvalidConfigError(
            f"spec.image: this image has no {settings.engine}; leave it to the chart, or name an image that has it",
            field="spec.image",
        )


def check_written(folder: Path) -> None:
    """Raise where *folder* is no quantized model: a library that writes nothing ends with 0 too."""
    config = json.loads((folder / "config.json").read_bytes())
    if "quantization_config" not in config:
        raise RunError(f"{folder.name}: the library wrote a model without quantization_config; please report this")
    (folder / _RECIPE).unlink(missing_ok=True)


def peak_memory(*, use_cpu: bool) -> int:
    """The most memory that this process held, of a GPU where it used one."""
    import torch

    if not use_cpu and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def versions() -> list[tuple[str, str]]:
    """The libraries that are here."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return found
