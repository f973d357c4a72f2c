from __future__ import annotations

from dataclasses import dataclass

from openai import OpenAI

from dev.kubectl import Manifest


@dataclass(frozen=True)
class Chain:
    """What the example ended in."""

    job: Manifest
    client: OpenAI
