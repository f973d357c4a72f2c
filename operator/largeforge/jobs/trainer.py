"""TRL's SFTTrainer with what a run needs of it besides: FSDP on CPUs, the time spent on data. Torch inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs import strategy
from largeforge.jobs.arguments import EXTRA_ARGS, Surroundings, sft_arguments
from largeforge.jobs.errors import DatasetInvalidError, InvalidConfigError
from largeforge.jobs.saving import Stopwatch


def sft_config(config: RunConfig, around: Surroundings) -> Any:
    """TRL's SFTConfig; an `InvalidConfigError` names an extra argument that it does not take."""
    import dataclasses

    from trl import SFTConfig

    unknown = sorted(set(config.extra_args) - {field.name for field in dataclasses.fields(SFTConfig)})
    if unknown:
        raise InvalidConfigError(
            f"{EXTRA_ARGS}.{unknown[0]}: TRL's SFTConfig has no such argument; correct or remove it", field=EXTRA_ARGS
        )
    try:
        return SFTConfig(**sft_arguments(config, around))
    except (TypeError, ValueError) as error:
        text = str(error).splitlines()[0][:300]
        raise InvalidConfigError(f"spec.training or {EXTRA_ARGS}: {text}", field="spec.training") from error


@dataclass(frozen=True, slots=True)
class Parts:
    """What a trainer is made of."""

    arguments: Any
    model: Any
    peft: Any
    """PEFT's settings of a new adapter."""
    tokenizer: Any
    rows: Any
    stopwatch: Stopwatch


def build(config: RunConfig, parts: Parts) -> Any:
    """The trainer of *parts*; everything that the run does not set is TRL's default.

    So the loss is TRL's too: over all tokens of a conversation or text, and over the completion alone where rows have
    prompt and completion.
    """
    from transformers import PrinterCallback

    try:
        trainer = _trainer_class(parts.stopwatch)(
            model=parts.model,
            args=parts.arguments,
            train_dataset=parts.rows.train,
            eval_dataset=parts.rows.eval,
            processing_class=parts.tokenizer,
            peft_config=parts.peft,
        )
    except ValueError as error:
        # TRL's own checks of arguments against model and data; preflight has made them too, without the weights.
        raise InvalidConfigError(f"spec.training: {str(error).splitlines()[0][:400]}", field="spec.training") from error
    trainer.remove_callback(PrinterCallback)  # it prints every log entry as a dict; the progress lines say it
    held_out_empty = parts.rows.eval is not None and len(trainer.eval_dataset) == 0
    if len(trainer.train_dataset) == 0 or held_out_empty:
        part = "every held-out completion" if held_out_empty else "every completion"
        raise DatasetInvalidError(
            f"spec.training.maxLength: {config.training.max_length} tokens cut off {part}; raise it",
            field="spec.training.maxLength",
        )
    return trainer


def _trainer_class(stopwatch: Stopwatch) -> Any:
    from trl import SFTTrainer

    class Trainer(SFTTrainer):  # type: ignore[misc]  # trl is not in the development environment
        """As TRL's; what is changed is named in each method."""

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            strategy.shard_on_cpu(self)

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            stopwatch.data_begins()
            found = super().get_batch_samples(*args, **kwargs)
            stopwatch.data_ends()
            return found

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
            # With FSDP a checkpoint holds the weights in FSDP's own file; a second copy would double time and space.
            if not (_internal_call and self.is_fsdp_enabled):
                super().save_model(output_dir, _internal_call=_internal_call)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Write none into checkpoints; the artifact gets our own."""

    return Trainer
