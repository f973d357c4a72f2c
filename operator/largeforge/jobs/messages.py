"""Lists of messages: checked, and reduced to role and content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from largeforge.jobs.problems import RowError, kind_of, shown

Message = dict[str, str]

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES: Mapping[str, str] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
}
"""The value of `from`, and the role that it is."""
_REFUSED_KEYS: Mapping[str, str] = {
    "tool_calls": "calls of tools are not read; write the call into content",
    "function_call": "calls of tools are not read; write the call into content",
    "weight": "weights of messages are not read; remove it, or use training.assistantOnlyLoss",
}
"""Keys that would change what is learnt, so that leaving them out in silence would be wrong."""


def canonical(value: object, path: str, *, answer: bool) -> list[Message]:
    """The messages in *value*, with role and content alone; raise `RowError` for what is wrong.

    A system message without content is left out. With *answer* there must be a message of role assistant.
    """
    messages = []
    for index, message in enumerate(_items(value, path)):
        if not isinstance(message, dict):
            raise RowError(f"{path}[{index}]", f"must be an object with role and content (got {kind_of(message)})")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or type(content) is not str or not content or content.isspace():
            if role == "system" and content in ("", None):
                continue
            raise _wrong_message(message, f"{path}[{index}]")
        if len(message) > 2:
            _refuse_keys(message, f"{path}[{index}]")
        messages.append({"role": role, "content": content})
    return _with_answer(messages, path) if answer else messages


def from_sharegpt(value: object, path: str) -> list[Message]:
    """The messages in *value*, a list of `{from, value}`; otherwise as `canonical`."""
    messages = []
    for index, message in enumerate(_items(value, path)):
        at = f"{path}[{index}]"
        if not isinstance(message, dict):
            raise RowError(at, f"must be an object with from and value (got {kind_of(message)})")
        speaker, content = message.get("from"), message.get("value")
        role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise _wrong_speaker(message, at)
        if role == "system" and content in ("", None):
            continue
        messages.append({"role": role, "content": text(content, f"{at}.value", empty_answer=role == "assistant")})
    return _with_answer(messages, path)


def text(value: object, path: str, *, empty_answer: bool = False) -> str:
    """*value*, which must be a text that is not blank."""
    if not isinstance(value, str):
        problem = "is missing" if value is None else f"must be a text (got {kind_of(value)})"
        raise RowError(path, problem, empty_answer=empty_answer and value is None)
    if not value or value.isspace():
        raise RowError(path, "must not be empty; write the text or remove the row", empty_answer=empty_answer)
    return value


def _items(value: object, path: str) -> list[Any]:
    """The list in *value*; a column of a CSV file holds it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowError(path, "must be a list of messages (got text that is no JSON)") from None
    if not isinstance(value, list):
        problem = "is missing" if value is None else f"must be a list of messages (got {kind_of(value)})"
        raise RowError(path, problem)
    if not value:
        raise RowError(path, "must have at least one message", empty_answer=True)
    return value


def _with_answer(messages: list[Message], path: str) -> list[Message]:
    if not any(message["role"] == "assistant" for message in messages):
        raise RowError(
            path, "must have a message of role assistant, which is what is learnt; add one", empty_answer=True
        )
    return messages


def _wrong_message(message: dict[Any, Any], path: str) -> RowError:
    if "role" not in message and {"from", "value"} <= message.keys():
        return RowError(path, "has from and value: looks like ShareGPT; set format: ShareGPT")
    for key in ("role", "content"):
        if key not in message:
            return RowError(f"{path}.{key}", "is missing")
    role = message["role"]
    if role not in ROLES:
        got = shown(role) if isinstance(role, str) else kind_of(role)
        return RowError(f"{path}.role", f"must be one of {', '.join(ROLES)} (got {got})")
    _refuse_keys(message, path)
    try:
        text(message["content"], f"{path}.content", empty_answer=role == "assistant")
    except RowError as error:
        return error
    raise AssertionError(path)  # `canonical` found something wrong, and it is none of these


def _wrong_speaker(message: dict[Any, Any], path: str) -> RowError:
    if "from" not in message and {"role", "content"} <= message.keys():
        return RowError(path, "has role and content: looks like messages; set format: Messages")
    if "from" not in message:
        return RowError(f"{path}.from", "is missing")
    speaker = message["from"]
    got = shown(speaker) if isinstance(speaker, str) else kind_of(speaker)
    return RowError(f"{path}.from", f"must be one of {', '.join(SHAREGPT_ROLES)} (got {got})")


def _refuse_keys(message: dict[Any, Any], path: str) -> None:
    for key, remedy in _REFUSED_KEYS.items():
        # A parquet file has the key in every row; 1 is the weight that every message has anyway.
        if message.get(key) not in (None, [], 1):
            raise RowError(f"{path}.{key}", remedy)
