"""How many tokens an answer took, as its engine says at its end. Looked for once, in the last bytes only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

PIECES = 3
"""As they are read: the event with `usage`, the one that says `[DONE]`, the end of the framing."""
REACH_BYTES = 4096
"""Behind `usage` stand a few members at most."""

_EVENT = b"data: {"
_KEY = b'"usage"'
# A number is followed by a comma or a bracket: one that a chunk's end cuts in two is not taken for a shorter one.
_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"[ \t]*:[ \t]*(\d{1,12})[ \t]*[,}]')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens"[ \t]*:[ \t]*(\d{1,12})[ \t]*[,}]')


class Usage(NamedTuple):
    """Tokens."""

    prompt: int
    completion: int


def without_content(last: Sequence[bytes]) -> int:
    """How many of the last pieces of a stream hold no event but `[DONE]`, or the end of the framing alone."""
    count = 0
    for piece in reversed(last):
        if _EVENT in piece:
            break
        count += 1
    return count


def usage_of(last: Sequence[bytes]) -> Usage | None:
    """What the last pieces of an answer, as it was read, say; None where they do not.

    In a text the key's closing quote would have a backslash before it, so this is a member of the engine's own.
    """
    end = last[0][-REACH_BYTES:] if len(last) == 1 else b"".join(last)[-REACH_BYTES:]
    at = end.rfind(_KEY)
    if at < 0:
        return None
    prompt = _PROMPT.search(end, at)
    if prompt is None:
        return None
    completion = _COMPLETION.search(end, at)  # embeddings have none
    return Usage(int(prompt[1]), int(completion[1]) if completion else 0)
