"""The base in memory: tokenizer, weights, and the adapter to go on from. Torch is imported inside."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.run import AdapterSource, LoraSettings, RunConfig
from largeforge.jobs.arguments import Precision, lora_arguments
from largeforge.jobs.errors import BaseInvalidError, InvalidConfigError, RunError, is_memory_trouble

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Base:
    """Where the base lies, and how it may be read."""

    folder: Path
    uri: str
    field: str
    trusted: dict[str, Any]
    """Keyword arguments of every `from_pretrained`: nothing is downloaded here, and code only where allowed."""

    def unloadable(self, part: str, error: Exception) -> BaseInvalidError:
        """The error for a *part* that the library refuses."""
        text = str(error).splitlines()[0][:200] if str(error) else ""
        return BaseInvalidError(
            f"{self.uri}: its {part} cannot be loaded ({type(error).__name__}: {text})", field=self.field
        )


def base(config: RunConfig, folder: Path) -> Base:
    """The base of *config*, which lies in *folder*."""
    trusted = {"local_files_only": True, "trust_remote_code": config.base.trust_remote_code}
    return Base(folder, config.base.uri, config.base.field, trusted)


def quiet_libraries() -> None:
    """Let the libraries speak of errors only: TRL's warnings decode tokens of the data."""
    for name in ("trl", "transformers", "datasets", "accelerate", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import transformers

    # They deprecate names that TRL still uses; no user can do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")
    # PEFT says so at each checkpoint of an adapter with modulesToSave; what is written is right.
    warnings.filterwarnings("ignore", message="Could not find a config file", module=r"peft\.")
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.folder, **base.trusted)
    except Exception as error:  # a foreign tokenizer raises what it likes
        raise base.unloadable("tokenizer", error) from error


def load_model(config: RunConfig, base: Base, precision: Precision, *, load: Callable[..., Any]) -> Any:
    """The base's weights, read by *load* (as `load_weights`); with LoRA in the type of the computation, else in 32 bit.

    All weights are trained in 32 bit even where the computation is in 16: an update smaller than 16 bit can say would
    be lost.
    """
    import torch

    types = {"BF16": torch.bfloat16, "FP16": torch.float16, "FP32": torch.float32}
    model = load(
        base,
        types[precision] if config.lora is not None else torch.float32,
        attn_implementation=config.training.attn_implementation,
    )
    if config.lora is not None:
        check_modules(config.lora, model)
    return model


def load_weights(base: Base, dtype: Any, *, attn_implementation: str | None = None) -> Any:
    """The base's weights as *dtype*, all of them."""
    from transformers import AutoModelForCausalLM

    chosen = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            base.folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **chosen, **base.trusted
        )
    except ImportError as error:  # flash attention that is not in the image
        raise InvalidConfigError(
            f"spec.training.attnImplementation: {attn_implementation} cannot be used"
            f" ({str(error).splitlines()[0][:200]}); choose sdpa or eager, or an image that has it",
            field="spec.training.attnImplementation",
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        if is_memory_trouble(error):
            raise
        raise base.unloadable("weights", error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseInvalidError(
            f"{base.uri}: its weights lack {len(missing)} tensors of the model, first {missing[0]}; copy it again",
            field=base.field,
        )
    return model


def stored_type(base: Base) -> Any:
    """The type in which the base's weights are stored; a whole model is written in the same."""
    import torch
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(base.folder, **base.trusted).dtype
    return dtype if dtype is not None else torch.float32


def linear_modules(model: Any) -> set[str]:
    """The names of the modules that can get an adapter: linear layers without the output head."""
    import torch

    head = model.get_output_embeddings()
    return {
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    }


def check_modules(lora: LoraSettings, model: Any) -> None:
    """Raise where *lora* names a module that *model* lacks; PEFT would train without it in silence."""
    if lora.target_modules != ["all-linear"]:
        _check_names(lora.target_modules, linear_modules(model), "targetModules", "linear module")
    if lora.modules_to_save is not None:
        names = {name for name, _ in model.named_modules() if name}
        _check_names(lora.modules_to_save, names, "modulesToSave", "module")


class TargetModulesNotFoundError(InvalidConfigError):
    """The base has no module of that name."""

    reason = Reason.TARGET_MODULES_NOT_FOUND


def _check_names(wanted: list[str], existing: set[str], field: str, kind: str) -> None:
    unknown = [name for name in wanted if not any(m == name or m.endswith(f".{name}") for m in existing)]
    if unknown:
        choices = ", ".join(sorted({name.rpartition(".")[2] for name in existing} - {""})[:20])
        rest = ", or [all-linear] alone" if field == "targetModules" else ""
        raise TargetModulesNotFoundError(
            f"spec.peft.{field}: the base has no {kind} {unknown[0]!r}; choose from {choices}{rest}",
            field=f"spec.peft.{field}",
        )


def choose_precision(config: RunConfig) -> Precision:
    """The type of the computation; Auto is BF16 on GPUs that have it, else FP32. Asks the GPU, so torch is loaded."""
    import torch

    wanted = config.training.precision
    if not config.compute.use_cpu:
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


def adapted(config: RunConfig, model: Any) -> tuple[Any, Any]:
    """The model to train and, where it gets a new adapter, PEFT's settings for it.

    An adapter to go on from is trained further where the run trains an adapter, and else merged into the weights.
    """
    from peft import LoraConfig, PeftModel

    if config.adapter is None:
        return model, LoraConfig(**lora_arguments(config.lora)) if config.lora is not None else None
    check_adapter(config.adapter, config.lora)
    wrapped = PeftModel.from_pretrained(
        model, config.adapter.path, is_trainable=config.lora is not None, local_files_only=True
    )
    if config.lora is None:
        return wrapped.merge_and_unload().requires_grad_(True), None  # PEFT had frozen the base
    for module in wrapped.modules():
        for dropout in getattr(module, "lora_dropout", {}).values():
            if hasattr(dropout, "p"):
                dropout.p = config.lora.lora_dropout
    return wrapped, None


def check_adapter(source: AdapterSource, lora: LoraSettings | None) -> None:
    """Raise where the adapter in *source* cannot be read, or was trained with another shape than *lora* asks for."""
    path = Path(source.path) / ADAPTER_CONFIG
    try:
        settings = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise BaseInvalidError(
            f"{source.uri}: has no readable {ADAPTER_CONFIG}; name the folder of a LoRA adapter", field=source.field
        ) from None
    if settings.get("peft_type") != "LORA":
        raise BaseInvalidError(f"{source.uri}: is no LoRA adapter; only these can be gone on from", field=source.field)
    if lora is None:
        return
    shape: list[tuple[str, object, object]] = [
        ("r", settings.get("r"), lora.r),
        ("loraAlpha", settings.get("lora_alpha"), lora.lora_alpha),
        ("useRslora", bool(settings.get("use_rslora")), lora.use_rslora),
        ("useDora", bool(settings.get("use_dora")), lora.use_dora),
        ("modulesToSave", settings.get("modules_to_save") or None, lora.modules_to_save),
    ]
    if lora.target_modules != ["all-linear"]:
        shape.append(("targetModules", sorted(settings.get("target_modules") or []), sorted(lora.target_modules)))
    for name, trained, asked in shape:
        if trained != asked:
            raise InvalidConfigError(
                f"spec.peft.{name}: the adapter {source.uri} was trained with {trained} (got {asked}); set it the same",
                field=f"spec.peft.{name}",
            )
