"""The settings of a run against the libraries that will take them: TRL's own configuration is made, on the CPU."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs.arguments import EXTRA_ARGS, Surroundings, check_extra_args, sft_arguments
from largeforge.jobs.errors import InvalidConfigError
from largeforge.jobs.problems import kind_of

_SHOWN_CHOICES = 12
_UNREACHABLE: Mapping[str, str] = {
    "chat_template_path": "names a file of the pod; put chat_template.jinja into the base's folder",
    "dataset_kwargs": "would let rows pass that preflight has not seen; prepare the data set instead",
}
_FLASH = ("flash_attention_2", "flash_attention_3", "flash_attention_4")


def check(config: RunConfig) -> list[str]:
    """Raise an `InvalidConfigError` with the field that is wrong; return what the user should know besides."""
    import warnings

    warnings.filterwarnings("ignore", category=FutureWarning)
    check_extra_args(config.extra_args)
    _check_extra_names(config.extra_args)
    _check_attention(config)
    bare = config.model_copy(update={"extra_args": {}})
    _build(bare, {}, field="spec.training")
    for name, value in sorted(config.extra_args.items()):
        _build(bare, {name: value}, field=f"{EXTRA_ARGS}.{name}")
    _build(bare, config.extra_args, field=EXTRA_ARGS)
    return _remarks(config)


def _check_extra_names(extra: Mapping[str, Any]) -> None:
    from pydantic import TypeAdapter, ValidationError
    from trl import SFTConfig

    known = {field.name for field in dataclasses.fields(SFTConfig)}
    hints = typing.get_type_hints(SFTConfig)
    for name, value in sorted(extra.items()):
        field = f"{EXTRA_ARGS}.{name}"
        if name not in known:
            raise InvalidConfigError(
                f"{field}: TRL's SFTConfig has no such argument{_alike(name, known)}; correct or remove it", field=field
            )
        if name in _UNREACHABLE:
            raise InvalidConfigError(f"{field}: {_UNREACHABLE[name]}", field=field)
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError:
            raise InvalidConfigError(
                f"{field}: must be {_words(hints[name])} (got {kind_of(value)}); correct it", field=field
            ) from None


def _alike(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _words(hint: Any) -> str:
    """The types of a hint, as JSON calls them."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "an object"}
    parts = [part for part in (typing.get_args(hint) or (hint,)) if part is not type(None)]
    words = []
    for part in parts:
        origin = typing.get_origin(part) or part
        if isinstance(origin, type) and issubclass(origin, enum.Enum):
            words.append("one of its names")
        elif typing.get_origin(part) is typing.Literal:
            words += [str(choice) for choice in typing.get_args(part)]
        elif origin is list:
            words.append("a list")
        else:
            words.append(names.get(origin, str(getattr(origin, "__name__", origin))))
    return " or ".join(dict.fromkeys(words))


def _build(config: RunConfig, extra: Mapping[str, Any], *, field: str) -> None:
    """Make TRL's configuration as training will, but for the GPU that is not here."""
    from trl import SFTConfig

    on_cpu = config.model_copy(
        update={
            "extra_args": dict(extra),
            "compute": config.compute.model_copy(update={"use_cpu": True}),
            "tracking": None,
        }
    )
    wanted = config.training.precision
    around = Surroundings(
        precision="FP32" if wanted == "Auto" else wanted, positions=1 << 20, evaluates=True, folder=Path("/nowhere")
    )
    try:
        # Without a backend: there are no other ranks here to be met.
        SFTConfig(**{**sft_arguments(on_cpu, around), "ddp_backend": None})
    except (TypeError, ValueError, KeyError, AttributeError, ImportError, AssertionError) as error:
        raise _refused(error, config, field) from None


def _refused(error: Exception, config: RunConfig, field: str) -> InvalidConfigError:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    for kind, name, value in (
        ("SchedulerType", "lrSchedulerType", config.training.lr_scheduler_type),
        ("OptimizerNames", "optim", config.training.optim),
    ):
        if f"not a valid {kind}" in text and field == "spec.training":
            choices = text[text.find("[") + 1 : text.rfind("]")].replace("'", "").split(", ")
            return InvalidConfigError(
                f"spec.training.{name}: transformers has no {value!r}; choose one of"
                f" {', '.join(choices[:_SHOWN_CHOICES])} …",
                field=f"spec.training.{name}",
            )
    return InvalidConfigError(f"{field}: TRL refuses it ({text[:300]}); correct it", field=field)


def _check_attention(config: RunConfig) -> None:
    wanted, field = config.training.attn_implementation, "spec.training.attnImplementation"
    if wanted is None:
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = sorted({"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()})
    if wanted not in known:
        raise InvalidConfigError(
            f"{field}: transformers has no {wanted!r}; choose one of {', '.join(known[:_SHOWN_CHOICES])}", field=field
        )
    if wanted in _FLASH and config.compute.use_cpu:
        raise InvalidConfigError(f"{field}: {wanted} needs a GPU; use sdpa, or set compute.gpusPerNode", field=field)
    if wanted == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise InvalidConfigError(
            f"{field}: the trainer image has no flash_attn; use sdpa, or an image of yours with it (spec.image)",
            field=field,
        )


def _remarks(config: RunConfig) -> list[str]:
    settings = config.training
    if settings.packing and settings.attn_implementation not in _FLASH:
        return [
            "training.packing without attnImplementation flash_attention_2: samples of one sequence can see each other"
        ]
    return []


def check_tokens(config: RunConfig, tokenizer: Any) -> None:
    """Raise where `eos_token` or `pad_token` of extraArgs is none of the tokenizer's."""
    for name in ("eos_token", "pad_token"):
        value = config.extra_args.get(name)
        if value is not None and value not in tokenizer.get_vocab():
            raise InvalidConfigError(
                f"{EXTRA_ARGS}.{name}: the base's tokenizer has no such token; choose one of its vocabulary",
                field=f"{EXTRA_ARGS}.{name}",
            )
    if config.extra_args.get("eos_token") is not None:
        tokenizer.eos_token = config.extra_args["eos_token"]
