"""What can be told of a tokenizer without loading it."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Any

from largeforge.api.inspect import TokenizerFacts
from largeforge.jobs.basemodel import TOKENIZER_FILES
from largeforge.jobs.folders import Folder

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
"""One of these makes a tokenizer."""
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


def tokenizer_facts(folder: Folder, names: Container[str]) -> TokenizerFacts:
    """Of the tokenizer among the files *names* of *folder*; all empty where there is none."""
    sha, there = hashlib.sha256(), [name for name in TOKENIZER_FILES if name in names]
    for name in there:
        content = folder.bytes(name)
        sha.update(f"{name}\0{len(content)}\0".encode() + content)
    settings = folder.json("tokenizer_config.json") if "tokenizer_config.json" in names else {}
    template = any(name in names for name in _TEMPLATES) or bool(settings.get("chat_template"))
    return TokenizerFacts(
        digest=sha.hexdigest() if there else "", tokens=_tokens(folder, names), chat_template=template
    )


def _tokens(folder: Folder, names: Container[str]) -> int | None:
    """The highest id plus 1."""
    if "tokenizer.json" in names:
        written = folder.json("tokenizer.json")
        model = written.get("model")
        ids = _ids(model.get("vocab") if isinstance(model, dict) else None)
        added = written.get("added_tokens")
        ids += [entry.get("id") for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
    elif "vocab.json" in names:
        ids = _ids(folder.json("vocab.json"))
        ids += _ids(folder.json("added_tokens.json")) if "added_tokens.json" in names else []
    else:
        return None
    counted = [each for each in ids if isinstance(each, int)]
    return max(counted) + 1 if counted else None


def _ids(vocabulary: Any) -> list[Any]:
    """The ids in a vocabulary: a map from token to id, or a list of tokens in their order."""
    if isinstance(vocabulary, dict):
        return list(vocabulary.values())
    return list(range(len(vocabulary))) if isinstance(vocabulary, list) else []
