"""Debian packages that a step needs: only what is missing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from dev.steps import StepError, run, step


def missing_packages(names: Sequence[str]) -> list[str]:
    """Those of *names* that dpkg does not list as installed."""
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names],
        capture_output=True,
        text=True,
        check=False,  # it exits with 1 as soon as one name is unknown
    )
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def ensure_packages(names: Sequence[str]) -> None:
    """Install those of *names* that are missing; nothing is fetched when none is."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        raise StepError(
            "this machine has no apt-get", remedy=f"use Debian or Ubuntu; these packages are needed: {' '.join(names)}"
        )
    missing = missing_packages(names)
    if not missing:
        return
    install = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0:
        raise StepError(f"packages are missing: {' '.join(missing)}", remedy=f"as root, run: {install}")
    remedy = f"check the network and the sources of apt, then run: apt-get update && {install}"
    with step(f"install {' '.join(missing)}"):
        _apt("update", remedy=remedy)
        _apt("install", "--yes", "--no-install-recommends", *missing, remedy=remedy)


def _apt(*arguments: str, remedy: str) -> None:
    # Another apt-get may be running: wait for its lock, do not fail.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300", *arguments, env=environment, remedy=remedy)
