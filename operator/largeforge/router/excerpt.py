"""The text of a JSON string, or of a long one its two ends: no more of it is classified, so no more is decoded."""

from __future__ import annotations

import re

import msgspec

from largeforge.router.classify import WINDOW

_CUT = re.compile(rb"[ \xc0-\xff]")
"""Where a JSON string can be cut: neither a space nor the first byte of a longer character is inside an escape."""
_STRIDE = 512
"""How far one looks for such a place."""
_string = msgspec.json.Decoder(str)


def text_of(value: msgspec.Raw) -> str:
    """The text of *value*, or a shorter one with the same `window`; a `ValidationError` where it is no string."""
    raw = memoryview(value)
    reach = 2 * WINDOW
    while 2 * reach < len(raw):
        text = _ends(raw, reach)
        if text is not None:
            return text
        reach *= 3
    return _string.decode(raw)


def _ends(raw: memoryview, reach: int) -> str | None:
    """What begins and what ends *raw*, if each has more characters than are looked at."""
    beginning, end = bytes(raw[:reach]), bytes(raw[-reach:])
    if not beginning.startswith(b'"'):
        return None
    first, last = _CUT.search(beginning, reach - _STRIDE), _CUT.search(end, 0, _STRIDE)
    if first is None or last is None:
        return None
    before = _string.decode(beginning[: first.start()] + b'"')
    after = _string.decode(b'"' + end[last.start() :])
    if min(len(before), len(after)) <= WINDOW:
        return None
    return before + after
