"""The members of a JSON object, one after the other, as bytes: where they lie, that none is too deep.

The text is known to be valid JSON. This is the long way of a scan, for bodies in which the short one is not certain.
"""

from __future__ import annotations

import re

import msgspec

from largeforge.router.openai import ApiError

MAX_DEPTH = 64

STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
SPACE = rb"[ \t\r\n]*+"


def _nested(levels: int) -> bytes:
    """What may stand inside brackets that hold at most *levels* of brackets more. Possessive, so it is linear."""
    inside = rb'(?:[^\[\]{}"]++|' + STRING + rb")*+"
    for _ in range(levels):
        inside = rb'(?:[^\[\]{}"]++|' + STRING + rb"|[\[{]" + inside + rb"[\]}])*+"
    return inside


# The top object is one level, the value's own brackets are the next.
_NESTED = rb"[\[{]" + _nested(MAX_DEPTH - 2) + rb"[\]}]"
_MEMBER = re.compile(
    SPACE + rb"(" + STRING + rb")" + SPACE + rb":" + SPACE
    + rb"(" + STRING + rb"|" + _NESTED + rb'|[^\[\]{}",\s]++)' + SPACE + rb"[,}]",
    re.DOTALL,
)  # fmt: skip
_DEEP = re.compile(_NESTED, re.DOTALL)
_OF_INTEREST = frozenset(("model", "stream", "messages"))
_ONCE = frozenset(("model", "stream"))


def members(body: bytes) -> dict[str, tuple[int, int]]:
    """Where the values of those that matter lie, of two the last, as parsers take it.

    An `ApiError` 400 where `model` or `stream` is double, or one is too deep.
    """
    spans: dict[str, tuple[int, int]] = {}
    at = body.index(b"{") + 1
    while True:
        member = _MEMBER.match(body, at)
        if member is None:  # it is valid JSON, so only the depth can be wrong
            raise too_deep()
        key = msgspec.json.decode(member.group(1), type=str)
        if key in _OF_INTEREST:
            if key in spans and key in _ONCE:
                raise invalid(f"the request body has '{key}' twice; send it once", param=key)
            spans[key] = member.span(2)
        at = member.end()
        if body[at - 1] == 0x7D:
            return spans


def is_shallow(body: bytes, start: int, end: int) -> bool:
    """Whether the array or object in *body* from *start* to *end*, a member's value, keeps the depth."""
    # The top object is a level, too.
    if _count(body, b"{", start, end) + _count(body, b"[", start, end) < MAX_DEPTH:
        return True
    found = _DEEP.match(body, start, end)
    return found is not None and found.end() == end


def _count(body: bytes, bracket: bytes, start: int, end: int) -> int:
    """How many of *bracket* there are, as far as it matters; where they are few, many times faster than `count`."""
    for found in range(MAX_DEPTH):
        start = body.find(bracket, start, end) + 1
        if not start:
            return found
    return MAX_DEPTH


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400 for a body that cannot be a request."""
    return ApiError(400, message, param=param, code=code)


def too_deep() -> ApiError:
    """400 for a body with too many levels of brackets."""
    return invalid(f"the request body is nested deeper than {MAX_DEPTH} levels")
