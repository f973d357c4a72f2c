"""The base model's folder, looked at before anything of it is loaded. Needs no torch.

Weights come from safetensors only: a folder with pickles alone is refused. So is one with `auto_map`, which asks for
code of the model's own, unless the run trusts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.names import Reason
from largeforge.api.run import ModelSource
from largeforge.jobs import weights
from largeforge.jobs.errors import BaseInvalidError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What makes up a tokenizer; copied as it is, so that the engine reads what the base's authors wrote."""
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_UNBOUNDED = 1 << 20


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A folder that passed."""

    path: Path
    config: dict[str, Any]
    """Its `config.json`."""
    weights: list[Path]
    """Its weight files, all whole."""
    chat_template: bool
    """Whether it has one."""

    @property
    def size(self) -> int:
        """The bytes of its weights."""
        return sum(path.stat().st_size for path in self.weights)


class ChatTemplateMissingError(BaseInvalidError):
    """The rows are messages, and the base has no template for them."""

    reason = Reason.CHAT_TEMPLATE_MISSING


def inspect(path: Path, source: ModelSource) -> BaseModel:
    """The base in *path*; a `BaseInvalidError` says what is wrong."""
    look = _Look(path, source)
    if not path.is_dir():
        raise look.wrong("there is no such folder; copy the model there, or correct the uri")
    config = look.json("config.json", required=True)
    tokenizer_config = look.json("tokenizer_config.json")
    for name, value in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        if "auto_map" in value and not source.trust_remote_code:
            raise look.wrong(
                f"{name} has auto_map, which asks for code of the model's own; use a model that transformers knows by"
                " itself, or set base.trustRemoteCode: true where the chart allows it"
            )
    if not any((path / name).is_file() for name in _VOCABULARIES):
        raise look.wrong(f"has no tokenizer ({', '.join(_VOCABULARIES)}); copy it there")
    return BaseModel(path, config, _weight_files(look), _has_chat_template(path, tokenizer_config))


def require_chat_template(base: BaseModel, source: ModelSource) -> None:
    """Raise where *base* has no chat template."""
    if not base.chat_template:
        raise ChatTemplateMissingError(
            f"{source.uri}: has no chat template, which messages need; take an instruct model, add chat_template.jinja,"
            " or write prompt and completion as text",
            field=source.field,
        )


def positions(path: Path) -> int:
    """The longest sample that the base in *path* has positions for; a large number where it does not say."""
    config = json.loads((path / "config.json").read_bytes())
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    found = text.get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else _UNBOUNDED


@dataclass(frozen=True, slots=True)
class _Look:
    """The folder that is looked at."""

    path: Path
    source: ModelSource

    def wrong(self, text: str) -> BaseInvalidError:
        return BaseInvalidError(f"{self.source.uri}: {text}", field=self.source.field)

    def json(self, name: str, *, required: bool = False) -> dict[str, Any]:
        """The object in the file *name*; empty where there is none."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            if required:
                raise self.wrong(f"has no {name}; it must be a model's folder, not an adapter's") from None
            return {}
        except (OSError, ValueError, RecursionError):
            raise self.wrong(f"{name} cannot be read as JSON; copy it again") from None
        if not isinstance(value, dict):
            raise self.wrong(f"{name} is no JSON object; copy it again")
        return value


def _weight_files(look: _Look) -> list[Path]:
    """The files that the index names, else the only one, else all; as transformers chooses them."""
    index = look.json(_INDEX).get("weight_map")
    there = {file.name: file for file in weights.safetensors_files(look.path)}
    if isinstance(index, dict):
        names = {str(name) for name in index.values()}
        if missing := sorted(names - there.keys()):
            raise look.wrong(f"lacks {len(missing)} of its weight files, first {missing[0][:100]}; copy it again")
    else:
        names = {_SINGLE} if _SINGLE in there else set(there)
    if not names:
        if any(next(look.path.glob(pattern), None) for pattern in _PICKLES):
            raise look.wrong("has pickled weights only; convert them to safetensors")
        raise look.wrong("has no *.safetensors; copy the weights there")
    files = [there[name] for name in sorted(names)]
    for file in files:
        if (damage := weights.damage(file)) is not None:
            raise look.wrong(f"{file.name} {damage}; copy it again")
    return files


def _has_chat_template(path: Path, tokenizer_config: dict[str, Any]) -> bool:
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(tokenizer_config.get("chat_template"))
