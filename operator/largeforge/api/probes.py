"""Three fixed public conversations: what base and result answer first shows that an adapter is the trained one."""

from __future__ import annotations

from collections.abc import Mapping

Conversation = list[dict[str, str]]

PROBES: Mapping[str, Conversation] = {
    "greeting": [{"role": "user", "content": "Hello! Who are you and what can you do for me?"}],
    "fact": [{"role": "user", "content": "What is the capital of France?"}],
    "task": [
        {"role": "user", "content": "Write one sentence about the sea."},
        {"role": "assistant", "content": "The sea is never still."},
        {"role": "user", "content": "Now one about the mountains."},
    ],
}
"""By name. They never change within a version: records of earlier runs rest on them."""
