"""What an Expert's `defaults` put into a request where the client left it out, as bytes to splice in.

A client's body is never written anew: its numbers, its key order and its spaces reach the engine as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from largeforge.api.expert import Defaults
from largeforge.router.scan import INSTRUCTIONS, MAX_TOKENS, TEMPERATURE, TOP_K, TOP_P, Call

Edit = tuple[int, int, bytes]
"""Bytes for the place of those from a start to an end; edits do not overlap."""


class Operation(Enum):
    """What of an engine can be asked, by its path."""

    CHAT = b"/v1/chat/completions"
    COMPLETIONS = b"/v1/completions"
    RESPONSES = b"/v1/responses"
    EMBEDDINGS = b"/v1/embeddings"

    def __init__(self, path: bytes) -> None:
        self.start_line = b"POST %b HTTP/1.1\r\n" % path
        """How a request begins."""

    def start_line_at(self, prefix: bytes) -> bytes:
        """How one begins that goes to a server where *prefix* stands before the path."""
        return b"POST %b%b HTTP/1.1\r\n" % (prefix, self.value)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a request, and what in the client's own request takes its place."""

    text: bytes
    unless: int


@dataclass(frozen=True, slots=True)
class Additions:
    """An Expert's defaults, made ready once for a table."""

    defaults: Defaults
    system_message: bytes | None = None
    """The first element of a chat's messages, with the comma behind it."""
    _made: dict[tuple[Operation, int], bytes] = field(default_factory=dict, compare=False, repr=False)
    """The members for an operation and what was present: few combinations, so each is put together once."""

    def edits(self, operation: Operation, call: Call) -> list[Edit]:
        """What to splice into *call*."""
        present = call.present
        key = (operation, present)
        members = self._made.get(key)
        if members is None:
            members = self._made[key] = b"".join(
                member.text for member in _members(self.defaults, operation) if not present & member.unless
            )
        edits: list[Edit] = [(call.members_at, call.members_at, members)] if members else []
        if self.system_message is not None and operation is Operation.CHAT:
            at = call.messages_at
            if at is not None and not call.has_system:
                edits.append((at, at, self.system_message))
        return edits


def additions(defaults: Defaults) -> Additions | None:
    """Those of *defaults*; None where it says nothing."""
    if all(value is None for _, value in defaults):
        return None
    prompt = defaults.system_prompt
    return Additions(defaults, None if prompt is None else _system_message(prompt))


def splice(body: bytes, edits: Sequence[Edit]) -> tuple[list[bytes | memoryview], int]:
    """*body* with the edits made, in pieces without copying the long ones, and its length."""
    view = memoryview(body)
    parts: list[bytes | memoryview] = []
    at, length = 0, len(body)
    for start, end, text in sorted(edits):
        parts += (view[at:start], text)
        length += len(text) - (end - start)
        at = end
    parts.append(view[at:])
    return parts, length


def _members(defaults: Defaults, operation: Operation) -> list[_Member]:
    if operation is Operation.EMBEDDINGS:
        return []
    longest = "max_output_tokens" if operation is Operation.RESPONSES else "max_tokens"
    members: list[tuple[str, object, int]] = [
        ("temperature", defaults.temperature, TEMPERATURE),
        ("top_p", defaults.top_p, TOP_P),
        ("top_k", defaults.top_k, TOP_K),
        (longest, defaults.max_tokens, MAX_TOKENS),
    ]
    if operation is Operation.RESPONSES:
        members.append(("instructions", defaults.system_prompt, INSTRUCTIONS))
    return [
        _Member(b'"%b":%b,' % (name.encode(), msgspec.json.encode(value)), unless)
        for name, value, unless in members
        if value is not None
    ]


def _system_message(prompt: str) -> bytes:
    return b'{"role":"system","content":%b},' % msgspec.json.encode(prompt)
