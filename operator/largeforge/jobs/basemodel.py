"""The base model's folder, looked at before anything of it is loaded. Needs no torch.

Weights come from safetensors only and no code of the model's is ever run: a folder with pickles alone, or with
`auto_map`, is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.jobs import weights
from largeforge.jobs.errors import BaseInvalidError

FIELD = "spec.base.uri"
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


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A folder that passed."""

    path: Path
    uri: str
    digest: str
    """SHA-256 over the weights."""


def inspect(path: Path, *, uri: str, chat: bool) -> BaseModel:
    """The base in *path*; a `BaseInvalidError` says what is wrong. With *chat* it needs a chat template."""
    if not path.is_dir():
        raise BaseInvalidError(f"{uri}: there is no such folder; copy the model there, or correct the uri", field=FIELD)
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_json(path / name, uri, required=name == "config.json"):
            raise BaseInvalidError(
                f"{uri}: {name} has auto_map, which asks for code of the model's own; remote code is refused,"
                " use a model that transformers knows by itself",
                field=FIELD,
            )
    files = _weight_files(path, uri)
    if not any((path / name).is_file() for name in _VOCABULARIES):
        raise BaseInvalidError(f"{uri}: has no tokenizer ({', '.join(_VOCABULARIES)}); copy it there", field=FIELD)
    if chat and not _has_chat_template(path, uri):
        raise BaseInvalidError(
            f"{uri}: has no chat template, which messages need; take an instruct model, add chat_template.jinja,"
            " or write prompt and completion as text",
            field=FIELD,
        )
    return BaseModel(path, uri, weights.digest(files))


def _weight_files(path: Path, uri: str) -> list[Path]:
    files = weights.safetensors_files(path)
    if not files:
        if any(next(path.glob(pattern), None) for pattern in _PICKLES):
            raise BaseInvalidError(f"{uri}: has pickled weights only; convert them to safetensors", field=FIELD)
        raise BaseInvalidError(f"{uri}: has no *.safetensors; copy the weights there", field=FIELD)
    index = _read_json(path / "model.safetensors.index.json", uri, required=False).get("weight_map")
    if isinstance(index, dict):
        missing = sorted({str(name) for name in index.values()} - {file.name for file in files})
        if missing:
            raise BaseInvalidError(
                f"{uri}: lacks {len(missing)} of its weight files, first {missing[0]}; copy it again", field=FIELD
            )
    for file in files:
        if (damage := weights.damage(file)) is not None:
            raise BaseInvalidError(f"{uri}: {file.name} {damage}; copy it again", field=FIELD)
    return files


def _has_chat_template(path: Path, uri: str) -> bool:
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return bool(_read_json(path / "tokenizer_config.json", uri, required=False).get("chat_template"))


def _read_json(path: Path, uri: str, *, required: bool) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        if required:
            raise BaseInvalidError(
                f"{uri}: has no {path.name}; it must be a model's folder, not an adapter's", field=FIELD
            ) from None
        return {}
    except (OSError, ValueError, RecursionError):
        raise BaseInvalidError(f"{uri}: {path.name} cannot be read as JSON; copy it again", field=FIELD) from None
    if not isinstance(value, dict):
        raise BaseInvalidError(f"{uri}: {path.name} is no JSON object; copy it again", field=FIELD)
    return value
