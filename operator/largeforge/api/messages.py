"""How Jobs are asked and answer: an environment variable in, a termination message out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from largeforge.api.model import Model

TERMINATION_MESSAGE_LIMIT = 4096
"""Bytes that the kubelet keeps of `/dev/termination-log`; a message that is cut is no JSON."""
QUESTION = "LARGEFORGE_QUESTION"
"""The environment variable with an `InspectConfig` or a `DeliverConfig` as JSON. No secret is in it."""

M = TypeVar("M", bound=Model)


def fitted(result: M, shorter: Callable[[M], M | None]) -> str:
    """The JSON of *result*, after as many steps of *shorter* as it takes to fit."""
    while len(text := result.model_dump_json(by_alias=True, exclude_none=True).encode()) > TERMINATION_MESSAGE_LIMIT:
        less = shorter(result)
        if less is None:
            raise ValueError(f"a result of {len(text)} bytes does not fit the termination message")
        result = less
    return text.decode()
