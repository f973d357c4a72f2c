"""The five formats of rows: which one a data set has, and how its rows become TRL's.

| format | columns | becomes |
|---|---|---|
| Messages | `messages`: a list of `{role, content}` | `messages` |
| ShareGPT | `conversations`: a list of `{from, value}`; `system` if there is one | `messages` |
| PromptCompletion | `prompt` and `completion`, both texts or both lists of messages | `prompt` and `completion` |
| Alpaca | `instruction`, `output`; `input` and `system` if there are any | `prompt` and `completion`, as messages |
| Text | `text` | `text` |

Where the columns of several formats are there, the first of this table is taken. Other columns are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from largeforge.jobs import messages
from largeforge.jobs.problems import RowError, kind_of

Row = dict[str, Any]
Format = Literal["Messages", "ShareGPT", "PromptCompletion", "Alpaca", "Text"]
Kind = Literal["messages", "prompt and completion as messages", "prompt and completion as text", "text"]
"""What TRL trains on. One run takes one kind, because TRL decides on the loss for the whole set."""

COLUMNS: Mapping[Format, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Messages": (("messages",), ()),
    "ShareGPT": (("conversations",), ("system",)),
    "PromptCompletion": (("prompt", "completion"), ()),
    "Alpaca": (("instruction", "output"), ("input", "system")),
    "Text": (("text",), ()),
}
"""The columns of each format: those that it needs, and those that it may have. In the order of detection."""
_FOREIGN: Mapping[str, str] = {
    "chosen": "'chosen' looks like preference data, which SFT does not take",
    "question": "'question' may be a prompt; set columns: {prompt: question, completion: <the answer's column>}",
    "query": "'query' may be a prompt; set columns: {prompt: query, completion: <the answer's column>}",
    "content": "'content' may be a text; set columns: {text: content}",
    "dialogue": "'dialogue' may hold messages; set columns: {messages: dialogue}",
}


def detect(row: Row, columns: Mapping[str, str]) -> Format | None:
    """The format of a data set by its first *row*; *columns* maps our names to the file's."""
    for candidate, (needed, _) in COLUMNS.items():
        if all(row.get(columns.get(name, name)) is not None for name in needed):
            return candidate
    return None


def by_content(found: Format, row: Row, columns: dict[str, str]) -> Format:
    """The format of a *row* whose columns look like *found*: `messages` may hold `{from, value}`, and the other way.

    *columns* then says that the column has the other format's name.
    """
    other: dict[Format, tuple[Format, str, str]] = {
        "Messages": ("ShareGPT", "messages", "conversations"),
        "ShareGPT": ("Messages", "conversations", "messages"),
    }
    if found not in other:
        return found
    instead, name, renamed = other[found]
    value = row.get(columns.get(name, name))
    first = value[0] if isinstance(value, list) and value else None
    if not isinstance(first, dict) or ("from" if found == "Messages" else "role") not in first:
        return found
    columns[renamed] = columns.pop(name, name)
    return instead


def hint(row: Row) -> str:
    """What a row of no known format may be."""
    return next((text for name, text in _FOREIGN.items() if name in row), "")


def mistaken(wanted: Format, row: Row, columns: Mapping[str, str]) -> str:
    """What to do about a *row* that lacks the columns of the format that the user *wanted*."""
    found = detect(row, columns)
    return f"looks like {found}; set format: {found}" if found is not None and found != wanted else hint(row)


@dataclass(frozen=True, slots=True)
class Converter:
    """Makes TRL's rows of those of one data set."""

    format: Format
    kind: Kind
    _convert: Callable[[Row], Row]

    def __call__(self, row: Row) -> Row:
        """The row with TRL's columns alone; raise `RowError` for what is wrong."""
        return self._convert(row)


def converter(chosen: Format, first: Row, columns: Mapping[str, str]) -> Converter:
    """The converter for a data set of the format *chosen*; the *first* row says whether prompts are messages."""
    if chosen == "PromptCompletion":
        as_messages = isinstance(first.get(columns.get("prompt", "prompt")), list)
        return _prompt_completion(columns, as_messages=as_messages)
    if chosen == "Messages":
        name = columns.get("messages", "messages")
        return Converter(
            chosen, "messages", lambda row: {"messages": messages.canonical(row.get(name), name, answer=True)}
        )
    if chosen == "ShareGPT":
        return Converter(chosen, "messages", _sharegpt(columns))
    if chosen == "Alpaca":
        return Converter(chosen, "prompt and completion as messages", _alpaca(columns))
    name = columns.get("text", "text")
    return Converter(chosen, "text", lambda row: {"text": messages.text(row.get(name), name, empty_answer=True)})


def _prompt_completion(columns: Mapping[str, str], *, as_messages: bool) -> Converter:
    prompt_name, completion_name = (columns.get(name, name) for name in ("prompt", "completion"))

    def alike(row: Row) -> tuple[Any, Any]:
        prompt, completion = row.get(prompt_name), row.get(completion_name)
        for name, value in ((prompt_name, prompt), (completion_name, completion)):
            if value is not None and isinstance(value, list) != as_messages:
                wanted = "a list of messages" if as_messages else "a text"
                raise RowError(name, f"must be {wanted}, as the first row's prompt is (got {kind_of(value)})")
        return prompt, completion

    def of_messages(row: Row) -> Row:
        prompt, completion = alike(row)
        return {
            "prompt": messages.canonical(prompt, prompt_name, answer=False),
            "completion": messages.canonical(completion, completion_name, answer=True),
        }

    def of_text(row: Row) -> Row:
        prompt, completion = alike(row)
        return {
            "prompt": messages.text(prompt, prompt_name),
            "completion": messages.text(completion, completion_name, empty_answer=True),
        }

    if as_messages:
        return Converter("PromptCompletion", "prompt and completion as messages", of_messages)
    return Converter("PromptCompletion", "prompt and completion as text", of_text)


def _sharegpt(columns: Mapping[str, str]) -> Callable[[Row], Row]:
    name, system_name = (columns.get(name, name) for name in ("conversations", "system"))

    def convert(row: Row) -> Row:
        turns = messages.from_sharegpt(row.get(name), name)
        return {"messages": [*_system(row, system_name), *turns]}

    return convert


def _alpaca(columns: Mapping[str, str]) -> Callable[[Row], Row]:
    task, about, answer, system = (columns.get(name, name) for name in ("instruction", "input", "output", "system"))

    def convert(row: Row) -> Row:
        prompt, given = messages.text(row.get(task), task), row.get(about)
        if given is not None and not isinstance(given, str):
            raise RowError(about, f"must be a text or left out (got {kind_of(given)})")
        if given and not given.isspace():
            prompt = f"{prompt}\n\n{given}"
        output = messages.text(row.get(answer), answer, empty_answer=True)
        return {
            "prompt": [*_system(row, system), {"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": output}],
        }

    return convert


def _system(row: Row, name: str) -> list[messages.Message]:
    """The system message of a column, if the row has one."""
    value = row.get(name)
    if value is None or value == "":
        return []
    return [{"role": "system", "content": messages.text(value, name)}]
