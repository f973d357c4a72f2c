"""The part of a run that needs torch: the model, the trainer, and what it measures."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from largeforge.api.common import Metric
from largeforge.api.finetunejob import RunFacts
from largeforge.api.run import RunConfig
from largeforge.jobs import basemodel, data
from largeforge.jobs.basemodel import BaseModel
from largeforge.jobs.errors import BaseInvalidError, DatasetInvalidError, InvalidConfigError, RunError
from largeforge.jobs.progress import Progress
from largeforge.jobs.ranks import Ranks

Precision = Literal["BF16", "FP16", "FP32"]

WARMUP_SHARE = 0.03
"""The share of the steps in which the learning rate rises; then it falls as a cosine."""
_VERSIONS_OF = ("torch", "transformers", "trl", "peft", "accelerate")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a training yielded besides weights."""

    metrics: list[Metric]
    facts: RunFacts


@dataclass(frozen=True, slots=True)
class Loaded:
    """The base in memory."""

    model: Any
    tokenizer: Any
    precision: Precision


def load(config: RunConfig, base: BaseModel, rows: data.TrainingData) -> Loaded:
    """Load the base; what can be found wrong without its weights is found before them."""
    _quiet_libraries()
    precision = choose_precision(config)
    tokenizer = load_tokenizer(base, rows)
    return Loaded(load_model(config, base, precision), tokenizer, precision)


def _quiet_libraries() -> None:
    """Let the libraries speak of errors only: TRL's warnings decode tokens of the data."""
    for name in ("trl", "transformers", "datasets", "accelerate", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import transformers

    # They deprecate names that TRL still uses; no user can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def load_tokenizer(base: BaseModel, rows: data.TrainingData) -> Any:
    """The base's tokenizer; before any weight is loaded, its chat template is tried on every row."""
    from jinja2 import TemplateError  # type: ignore[import-not-found]  # comes with transformers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a foreign tokenizer raises what it likes
        raise _unloadable(base, "tokenizer", error) from error
    if not rows.conversational:
        return tokenizer
    for row, (dataset, line) in zip(rows.rows, rows.places, strict=True):
        messages = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
        try:
            tokenizer.apply_chat_template(messages, tokenize=False)
        except (TemplateError, TypeError, ValueError) as error:
            problem = data.Problem("", f"the base's chat template refuses it: {str(error)[:100]}")
            raise data.invalid(dataset, [(line, problem)]) from None
    return tokenizer


def load_model(config: RunConfig, base: BaseModel, precision: Precision) -> Any:
    """The base's weights, from safetensors; with LoRA in the type of the computation, else in 32 bit.

    All weights are trained in 32 bit even where the computation is in 16: an update smaller than 16 bit can say would
    be lost.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    trusted: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model_config = AutoConfig.from_pretrained(base.path, **trusted)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(model_config, trust_remote_code=False)
    except Exception as error:  # a foreign configuration raises what it likes
        raise _unloadable(base, "config.json", error) from error
    if config.lora is not None:
        check_target_modules(config.lora.target_modules, linear_modules(skeleton))
    types = {"BF16": torch.bfloat16, "FP16": torch.float16, "FP32": torch.float32}
    dtype = types[precision] if config.lora is not None else torch.float32
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            base.path, dtype=dtype, use_safetensors=True, output_loading_info=True, **trusted
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if "out of memory" in str(error) or "DefaultCPUAllocator" in str(error):
            raise
        raise _unloadable(base, "weights", error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseInvalidError(
            f"{base.uri}: its weights lack {len(missing)} tensors of the model, first {missing[0]}; copy it again",
            field=basemodel.FIELD,
        )
    return model


def linear_modules(model: Any) -> set[str]:
    """The names of the modules that can get an adapter: linear layers without the output head."""
    import torch

    head = model.get_output_embeddings()
    return {
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    }


def check_target_modules(wanted: list[str], existing: set[str]) -> None:
    """Raise where one of *wanted* names none of the *existing* modules; PEFT would train without it in silence."""
    if wanted == ["all-linear"]:
        return
    unknown = [name for name in wanted if not any(m == name or m.endswith(f".{name}") for m in existing)]
    if unknown:
        choices = ", ".join(sorted({name.rpartition(".")[2] for name in existing})[:20])
        raise InvalidConfigError(
            f"spec.peft.targetModules: the base has no linear module {unknown[0]!r};"
            f" choose from {choices}, or [all-linear] alone",
            field="spec.peft.targetModules",
        )


def _unloadable(base: BaseModel, part: str, error: Exception) -> BaseInvalidError:
    text = str(error).splitlines()[0][:200] if str(error) else ""
    return BaseInvalidError(
        f"{base.uri}: its {part} cannot be loaded ({type(error).__name__}: {text})", field=basemodel.FIELD
    )


def choose_precision(config: RunConfig) -> Precision:
    """The type of the computation; Auto is BF16 on GPUs that have it, else FP32. Asks the GPU, so torch is loaded."""
    import torch

    wanted = config.training.precision
    if not config.use_cpu:
        if not torch.cuda.is_available():
            raise RunError(
                "no GPU is visible in the pod; see its node's driver and device plugin, or set compute.gpusPerNode: 0"
                " to train on the CPU",
                field="spec.compute.gpusPerNode",
            )
        if wanted in ("Auto", "BF16"):
            if torch.cuda.is_bf16_supported(including_emulation=False):
                return "BF16"
            if wanted == "BF16":
                raise InvalidConfigError(
                    "spec.training.precision: this GPU has no BF16; use FP16, FP32 or Auto",
                    field="spec.training.precision",
                )
    return "FP32" if wanted == "Auto" else wanted


def build_trainer(config: RunConfig, loaded: Loaded, rows: data.TrainingData) -> Any:
    """TRL's SFTTrainer on *rows*, with what the run sets; everything else is TRL's default.

    So the loss is TRL's too: over all tokens of a conversation (`messages`), the questions included, and over the
    completion alone where rows have prompt and completion. It does not depend on whether the base's chat template
    marks the assistant's turns, which most do not.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    train, held_out = data.split(len(rows.rows), ratio=config.eval_split_ratio, seed=config.training.seed)
    trainer = SFTTrainer(
        model=loaded.model,
        args=trainer_arguments(config, loaded),
        train_dataset=Dataset.from_list([rows.rows[i] for i in train]),
        eval_dataset=Dataset.from_list([rows.rows[i] for i in held_out]) if held_out else None,
        processing_class=loaded.tokenizer,
        peft_config=adapter_arguments(config),
    )
    trainer.remove_callback(PrinterCallback)  # it prints every log entry as a dict; the progress lines say it
    if len(trainer.train_dataset) == 0 or (held_out and len(trainer.eval_dataset) == 0):
        part = "every completion" if len(trainer.train_dataset) == 0 else "every held-out completion"
        raise DatasetInvalidError(
            f"spec.training.maxLength: {config.training.max_length} tokens cut off {part}; raise it",
            field="spec.training.maxLength",
        )
    return trainer


def adapter_arguments(config: RunConfig) -> Any:
    """PEFT's LoraConfig, or None where all weights are trained."""
    from peft import LoraConfig

    if config.lora is None:
        return None
    modules = config.lora.target_modules
    return LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.lora_alpha,
        lora_dropout=config.lora.lora_dropout,
        target_modules="all-linear" if modules == ["all-linear"] else modules,
        task_type="CAUSAL_LM",
    )


def trainer_arguments(config: RunConfig, loaded: Loaded) -> Any:
    """TRL's SFTConfig."""
    from trl import SFTConfig

    settings = config.training
    return SFTConfig(
        output_dir="/tmp/largeforge-trainer",  # noqa: S108 - nothing is written there: there are no checkpoints yet
        max_steps=settings.max_steps if settings.max_steps is not None else -1,
        num_train_epochs=settings.num_train_epochs if settings.num_train_epochs is not None else 1.0,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP_SHARE,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_length=min(settings.max_length, positions(loaded.model)),
        seed=settings.seed,
        bf16=loaded.precision == "BF16",
        fp16=loaded.precision == "FP16",
        use_cpu=config.use_cpu,
        # Recomputing saves memory, which a GPU is short of, and costs time, which a CPU is short of.
        gradient_checkpointing=not config.use_cpu,
        ddp_backend="gloo" if config.use_cpu else None,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not config.use_cpu,
        logging_steps=1,
        # Not `evaluate()` before `train()`: that prepares the model without DDP, and the ranks then train apart.
        eval_on_start=config.eval_split_ratio > 0,
        disable_tqdm=True,
        save_strategy="no",
        report_to="none",
    )


def positions(model: Any) -> int:
    """The longest sample that the model has positions for."""
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if limit else 1 << 20


def train(trainer: Any, ranks: Ranks, precision: Precision, *, say: Callable[[str], None]) -> Measured:
    """Train, with the held-out loss before and after; the facts are read back from the running trainer."""
    from transformers import TrainerCallback

    progress = Progress(say)
    losses: list[float] = []
    facts: list[RunFacts] = []

    class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not in the development environment
        """What the trainer tells while it runs."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            if not facts:
                facts.append(read_back(trainer, ranks, precision))
                progress.begin()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:  # noqa: ARG002
            progress.step(logs, step=max(1, state.global_step), total=state.max_steps)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:  # noqa: ARG002
            losses.append(progress.evaluated(metrics["eval_loss"]))

    trainer.add_callback(Watch())
    outcome = trainer.train()
    if trainer.eval_dataset is not None and len(trainer.eval_dataset):
        trainer.evaluate()
    _check_agreement(trainer)
    values = {
        "train_loss": f"{outcome.training_loss:.4f}",
        **{name: f"{loss:.4f}" for name, loss in zip(("eval_loss_before", "eval_loss"), losses, strict=False)},
        "steps": str(outcome.global_step),
        "tokens": str(round(_tokens(trainer))),
        "train_runtime_seconds": f"{outcome.metrics['train_runtime']:.1f}",
    }
    return Measured([Metric(name=name, value=value) for name, value in values.items()], facts[0])


def _tokens(trainer: Any) -> float:
    """Tokens that were trained on, over all ranks, as TRL counts them."""
    counts = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    return float(counts[-1]) if counts else 0.0


def _check_agreement(trainer: Any) -> None:
    """Raise unless all ranks ended with the same weights: whatever the trainer says, else they trained apart."""
    import torch

    trained = [p.detach().double().sum() for p in trainer.model.parameters() if p.requires_grad]
    sums = trainer.accelerator.gather(torch.stack(trained).sum().reshape(1))
    if bool((sums != sums[0]).any()):
        raise RunError("the ranks ended with different weights: they did not train together; please report this")


def read_back(trainer: Any, ranks: Ranks, precision: Precision) -> RunFacts:
    """What is in force; another strategy, type or number than was asked for ends the run."""
    import importlib.metadata

    from torch.nn.parallel import DistributedDataParallel

    accelerator = trainer.accelerator
    found = accelerator.num_processes
    strategy = "DDP" if isinstance(trainer.model_wrapped, DistributedDataParallel) and found > 1 else "Single"
    effective = {"bf16": "BF16", "fp16": "FP16", "no": "FP32"}.get(accelerator.mixed_precision, "?")
    if (found, strategy, effective) != (ranks.world, "Single" if ranks.world == 1 else "DDP", precision):
        raise RunError(f"asked for {ranks.world} ranks in {precision}, got {found} as {strategy} in {effective}")
    versions = [Metric(name=name, value=importlib.metadata.version(name)) for name in _VERSIONS_OF]
    return RunFacts(strategy=strategy, precision=effective, ranks=found, versions=versions)
