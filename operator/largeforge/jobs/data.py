"""The training data: read, checked row by row before any weight is loaded, and split. Needs no torch.

Two forms of rows, those of TRL: conversational (`messages`), and prompt-completion (`prompt` and `completion`, both
texts or both lists of messages). One run takes one form, because TRL decides on the loss for the whole set. Other
columns are left out.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.run import MountedDataset
from largeforge.jobs.errors import DatasetInvalidError, DatasetMissingError

Row = dict[str, Any]

ROLES = ("system", "user", "assistant")
SHOWN_PROBLEMS = 5
"""Problems that an error names; the rest is counted."""
_SHOWN_VALUE = 32
"""Characters of a role that an error may show; nothing else of the content is ever shown."""
_FOREIGN_FORMS = {
    "conversations": "looks like ShareGPT; rename it to messages, from to role and value to content",
    "instruction": "looks like Alpaca; rename instruction to prompt and output to completion",
    "text": "plain text has no answer to learn; write prompt and completion",
    "chosen": "looks like preference data, which SFT does not take; write prompt and completion",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be trained on, without its content."""

    path: str
    """Where in the row, for example `messages[2].role`; empty for the whole row."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All rows in order, where each came from, and their digest."""

    rows: Sequence[Row]
    places: Sequence[tuple[MountedDataset, int]]
    """The data set and line of each row, for messages."""
    digest: str

    @property
    def conversational(self) -> bool:
        """Whether the base's chat template is needed."""
        first = self.rows[0]
        return "messages" in first or isinstance(first["prompt"], list)


def read(datasets: Sequence[MountedDataset]) -> TrainingData:
    """Read all *datasets*; a `RunError` names file, line, path and remedy of what is wrong in the first bad one."""
    rows: list[Row] = []
    places: list[tuple[MountedDataset, int]] = []
    for dataset in datasets:
        found = list(_read_file(dataset, form_of(rows[0]) if rows else None))
        if not found:
            raise DatasetInvalidError(f"{dataset.uri}: has no rows", field=dataset.field)
        rows += [row for _, row in found]
        places += [(dataset, line) for line, _ in found]
    return TrainingData(rows, places, digest(rows))


def _read_file(dataset: MountedDataset, form: str | None) -> Iterator[tuple[int, Row]]:
    problems: list[tuple[int, Problem]] = []
    for line, text in _lines(dataset):
        row, problem = parse(text)
        if row is not None and problem is None:
            form = form or form_of(row)
            if form_of(row) != form:
                problem = Problem("", f"has {form_of(row)}, but the first row has {form}; one run takes one form")
        if problem is not None:
            problems.append((line, problem))
        elif row is not None:
            yield line, row
    if problems:
        raise invalid(dataset, problems)


def invalid(dataset: MountedDataset, problems: Sequence[tuple[int, Problem]]) -> DatasetInvalidError:
    """The error for *problems*, each with its line: the first few in full, the others counted."""
    shown = "; ".join(f"line {line}: {problem}" for line, problem in problems[:SHOWN_PROBLEMS])
    rest = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
    return DatasetInvalidError(f"{dataset.uri} {shown}{rest}", field=dataset.field)


def _lines(dataset: MountedDataset) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    try:
        with Path(dataset.path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if content.strip():
                    yield number, content
    except FileNotFoundError:
        raise DatasetMissingError(
            f"{dataset.uri}: there is no such file; write it there, or correct the uri", field=dataset.field
        ) from None
    except IsADirectoryError:
        raise DatasetMissingError(
            f"{dataset.uri}: is a folder; name a .jsonl file in it", field=dataset.field
        ) from None
    except OSError as error:
        raise DatasetMissingError(f"{dataset.uri}: cannot be read ({error.strerror})", field=dataset.field) from None


def parse(line: bytes) -> tuple[Row | None, Problem | None]:
    """The row of one *line*, reduced to the columns that are trained on; or what is wrong with it."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return None, Problem("", "is not UTF-8")
    except (ValueError, RecursionError):
        return None, Problem("", "is not JSON; a .jsonl file has one object on each line")
    if not isinstance(value, dict):
        return None, Problem("", f"must be an object (got {_kind(value)})")
    problem = check(value)
    return (None, problem) if problem is not None else (_trained_columns(value), None)


def check(row: Row) -> Problem | None:
    """What is wrong with *row*, if anything."""
    if "messages" in row:
        if "prompt" in row or "completion" in row:
            return Problem("", "has messages and prompt or completion; keep one form")
        return check_messages(row["messages"], "messages", answer=True)
    if "prompt" not in row or "completion" not in row:
        hint = next((f" ({name!r}: {hint})" for name, hint in _FOREIGN_FORMS.items() if name in row), "")
        return Problem("", f"needs messages, or prompt and completion{hint}")
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        return Problem("completion", f"must be a {_kind(prompt)} as prompt is (got {_kind(completion)})")
    if isinstance(prompt, list):
        return check_messages(prompt, "prompt") or check_messages(completion, "completion", answer=True)
    return _check_text(prompt, "prompt") or _check_text(completion, "completion")


def check_messages(value: object, path: str, *, answer: bool = False) -> Problem | None:
    """What is wrong with a list of messages; with *answer* it must have something to learn from."""
    if not isinstance(value, list):
        return Problem(path, f"must be a list of messages (got {_kind(value)})")
    if not value:
        return Problem(path, "must have at least one message")
    for index, message in enumerate(value):
        problem = _check_message(message, f"{path}[{index}]")
        if problem is not None:
            return problem
    if answer and not any(message["role"] == "assistant" for message in value):
        return Problem(path, "must have a message of role assistant, which is what is learnt")
    return None


def _check_message(message: object, path: str) -> Problem | None:
    if not isinstance(message, dict):
        return Problem(path, f"must be an object with role and content (got {_kind(message)})")
    for key in ("role", "content"):
        if key not in message:
            return Problem(f"{path}.{key}", "is missing")
    role = message["role"]
    if not isinstance(role, str):
        return Problem(f"{path}.role", f"must be one of {', '.join(ROLES)} (got {_kind(role)})")
    if role not in ROLES:
        return Problem(f"{path}.role", f"must be one of {', '.join(ROLES)} (got {json.dumps(role[:_SHOWN_VALUE])})")
    return _check_text(message["content"], f"{path}.content")


def _check_text(value: object, path: str) -> Problem | None:
    if not isinstance(value, str):
        return Problem(path, f"must be a text (got {_kind(value)})")
    if not value.strip():
        return Problem(path, "must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        return Problem(path, "has half of a surrogate pair, which is no character")
    return None


def _kind(value: object) -> str:
    """JSON's word for the type of *value*."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def form_of(row: Row) -> str:
    """The form of a checked *row*, in words."""
    if "messages" in row:
        return "messages"
    return "prompt and completion as " + ("messages" if isinstance(row["prompt"], list) else "text")


def _trained_columns(row: Row) -> Row:
    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [{"role": message["role"], "content": message["content"]} for message in value]
        return value

    return {name: plain(row[name]) for name in ("messages", "prompt", "completion") if name in row}


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 over the canonical JSON of *rows* in order, a line each: spaces and other columns do not matter."""
    sha = hashlib.sha256()
    for row in rows:
        sha.update(json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    return sha.hexdigest()


def split(count: int, *, ratio: float, seed: int) -> tuple[list[int], list[int]]:
    """The rows to train on and those held out, as ascending indices; the same seed gives the same split.

    A ratio above 0 holds out at least one row, and at least one is left to train on.
    """
    if ratio <= 0:
        return list(range(count)), []
    held_out = min(max(1, round(count * ratio)), count - 1)
    if held_out < 1:
        raise DatasetInvalidError(
            "spec.evalSplitRatio holds out a row, but there is only one in all; add rows or set evalSplitRatio: 0",
            field="spec.evalSplitRatio",
        )
    chosen = set(random.Random(seed).sample(range(count), held_out))  # noqa: S311 - a split, not a secret
    return [i for i in range(count) if i not in chosen], sorted(chosen)
