"""TRL's trainer made once on the CPU, with a model of one tiny layer and a few rows, so that what it refuses is known
before a GPU is taken. Much of what it checks it checks there, and not in its configuration.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs.arguments import EXTRA_ARGS, Surroundings, sft_arguments
from largeforge.jobs.errors import InvalidConfigError
from largeforge.jobs.formats import Row

_OPTIM = "spec.training.optim"
_STEPS = 10


def check(config: RunConfig, tokenizer: Any, rows: Sequence[Row]) -> None:
    """Raise an `InvalidConfigError` with the field that TRL refuses, if it refuses any."""
    if (refusal := _refusal(config, config.extra_args, tokenizer, rows)) is None:
        return
    if (bare := _refusal(config, {}, tokenizer, rows)) is not None:
        field = _OPTIM if isinstance(bare, ImportError) else "spec.training"
        raise _error(field, bare)
    for name, value in sorted(config.extra_args.items()):
        if (own := _refusal(config, {name: value}, tokenizer, rows)) is not None:
            raise _error(f"{EXTRA_ARGS}.{name}", own)
    raise _error(EXTRA_ARGS, refusal)


def _error(field: str, refusal: Exception) -> InvalidConfigError:
    text = next((line for line in str(refusal).splitlines() if line.strip()), type(refusal).__name__)
    return InvalidConfigError(f"{field}: TRL refuses it ({text[:400]}); correct it", field=field)


def _refusal(config: RunConfig, extra: Mapping[str, Any], tokenizer: Any, rows: Sequence[Row]) -> Exception | None:
    """What making the trainer, its optimizer and its loader of rows raises."""
    with tempfile.TemporaryDirectory(prefix="largeforge-rehearsal-") as folder:
        try:
            trainer = _trainer(config, extra, copy.deepcopy(tokenizer), rows, Path(folder))
            trainer.create_optimizer_and_scheduler(_STEPS)
            trainer.get_train_dataloader()
        except (ValueError, TypeError, KeyError, ImportError, AttributeError, RuntimeError) as error:
            return error
    return None


def _trainer(config: RunConfig, extra: Mapping[str, Any], tokenizer: Any, rows: Sequence[Row], folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    compute = config.compute.model_copy(update={"use_cpu": True, "strategy": "Single"})
    alone = config.model_copy(update={"extra_args": dict(extra), "compute": compute, "tracking": None})
    around = Surroundings(precision="FP32", positions=1 << 20, evaluates=True, folder=folder)
    held = Dataset.from_list(list(rows))
    return SFTTrainer(
        model=_tiny(config, len(tokenizer)),
        args=SFTConfig(**{**sft_arguments(alone, around), "ddp_backend": None}),
        train_dataset=held,
        eval_dataset=held,
        processing_class=tokenizer,
    )


def _tiny(config: RunConfig, vocabulary: int) -> Any:
    """A model that learns nothing, with the base's vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    described = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(described)
    if config.training.attn_implementation is not None:
        # No forward pass is made, so that the kernel itself is not needed here.
        model.config._attn_implementation_internal = config.training.attn_implementation  # noqa: SLF001
    return model
