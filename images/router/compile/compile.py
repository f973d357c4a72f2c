# ruff: noqa: INP001 - a script by itself
"""Compile the router's data path in place: `compile.py SITE`, where SITE holds the package `largeforge`.

mypyc makes an extension of each module, from its own types; the source stays beside it, for tracebacks. The Python part
of a request then takes half its time. A module that is not listed runs as it is, with the same results: the router's
tests pass on both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MODULES = (
    "admission",
    "breaker",
    "choose",
    "classifier",
    "classify",
    "clients",
    "dispatch",
    "excerpt",
    "exchange",
    "http1",
    "limits",
    "metrics",
    "pool",
    "protocol",
    "reader",
    "resolve",
    "service",
    "spans",
    "text",
    "upstream",
    "usage",
)
"""Of `largeforge.router`. Not those that define structs of msgspec, whose metaclass makes classes at run time, and not
Enums with an `__init__`. One that mypyc cannot compile any more is left out, and runs as it is."""


def main() -> None:
    """Compile; the parts that were made on the way are removed."""
    site = Path(sys.argv[1]).resolve()
    sources = [f"largeforge/router/{name}.py" for name in MODULES]
    environment = {**os.environ, "MYPYPATH": str(site), "MYPYC_OPT_LEVEL": "2", "MYPYC_DEBUG_LEVEL": "0"}
    mypyc = [sys.executable, "-m", "mypyc", "--ignore-missing-imports", *sources]
    subprocess.run(mypyc, cwd=site, env=environment, check=True)
    for leftover in ("build", ".mypy_cache"):
        shutil.rmtree(site / leftover, ignore_errors=True)


if __name__ == "__main__":
    main()
