"""Write the locks: exact versions with hashes, and no registry's address."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dev.images import catalog
from dev.paths import REPO
from dev.steps import StepError, run, step

DEVELOPMENT = "dev"
DOCUMENTS = "docs"
TORCH = "torch"
EMBEDDING = "router/embedding"
COMPILE = "router/compile"
NAMES = (DEVELOPMENT, DOCUMENTS, TORCH, EMBEDDING, COMPILE, *catalog.IMAGES)

AUTOAWQ = "quantizer-autoawq"
ON_TORCH = ("trainer", "engine-cpu", "quantizer", AUTOAWQ)
_FROM_SOURCE = ("--no-binary", "autoawq", "--no-emit-package", "autoawq")
"""Upstream has it as source alone, which is in a lock of its own (`source.lock`); it is archived, so that stays."""

_REMEDY = "see uv's message above: two requirements exclude each other, or the registry was not reached"


def lock(names: Sequence[str] = (), *, upgrade: bool = False) -> None:
    """
    Write the locks called *names*, all when there is none; *upgrade* takes newer versions than a lock has now.

    Whoever changes the lock of torch must write those of the images on it anew, and trainer's before demo-model's:
    each is held to the versions of the one below it.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise StepError(f"there is no lock {', '.join(unknown)}", remedy=f"choose from: {', '.join(NAMES)}")
    for name in NAMES:
        if not names or name in names:
            with step(f"lock {name}"):
                _lock(name, upgrade=upgrade)


def arguments(name: str) -> list[str]:
    """What uv gets for the lock *name*; paths in the repository."""
    if name == DEVELOPMENT:
        extras = [part for extra in ("operator", "router", "cli", "dev") for part in ("--extra", extra)]
        # Other Pythons and systems get their own lines in it.
        inputs = ["pyproject.toml", "dev/requirements.in", "--override", "dev/overrides.txt"]
        return ["--universal", *extras, *inputs, "-o", "dev/requirements.lock"]
    if name == DOCUMENTS:
        return ["--universal", "docs/requirements.in", "-o", "docs/requirements.lock"]
    folder = f"images/{name}"
    below = {"demo-model": "trainer"} | dict.fromkeys(ON_TORCH, TORCH)
    inputs = {
        TORCH: [f"{folder}/requirements.in"],
        COMPILE: [f"{folder}/requirements.in"],
        EMBEDDING: [f"{folder}/requirements.in", "--override", f"{folder}/overrides.txt"],
        "engine-cpu": [f"{folder}/requirements.in", "--override", f"{folder}/overrides.txt"],
        "demo-model": [f"{folder}/requirements.in", "--override", f"{folder}/overrides.txt"],
        AUTOAWQ: [f"{folder}/requirements.in", "--override", f"{folder}/overrides.txt", *_FROM_SOURCE],
    }.get(name, ["--extra", name, "pyproject.toml", f"{folder}/requirements.in"])
    if name == "router":
        inputs += ["--override", f"{folder}/overrides.txt"]
    constraint = ["--constraint", f"images/{below[name]}/requirements.lock"] if name in below else []
    # glibc 2.36 is Debian 12's, the system of the base.
    system = ["--python-platform", "x86_64-manylinux_2_36", "--only-binary", ":all:"]
    return [*system, *constraint, *inputs, "-o", f"{folder}/requirements.lock"]


def _lock(name: str, *, upgrade: bool) -> None:
    run(
        Path(sys.executable).with_name("uv"),
        *("pip", "compile", "--quiet", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header"),
        *("--no-emit-index-url", "--no-emit-find-links"),
        *(["--upgrade"] if upgrade else []),
        *arguments(name),
        cwd=REPO,
        remedy=_REMEDY,
    )
