"""Rows for measurements, made of Python's own documentation."""

from __future__ import annotations

import json
import random
from pathlib import Path


def write_rows(path: Path, size: int) -> None:
    """*size* conversations, about 190 tokens each."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics.values()).split())
    rng = random.Random(1)  # noqa: S311 - rows for a measurement

    def piece(least: int, most: int) -> str:
        begin = rng.randrange(len(text) - most)
        return text[begin : begin + rng.randrange(least, most)].strip() or "x"

    with path.open("w") as file:
        for _ in range(size):
            turns = [{"role": "user", "content": piece(40, 300)}, {"role": "assistant", "content": piece(100, 900)}]
            file.write(json.dumps({"messages": turns}) + "\n")
