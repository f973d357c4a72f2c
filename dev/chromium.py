"""Debian's Chromium, for the tests of the router's page."""

from __future__ import annotations

import shutil
from pathlib import Path

from dev.packages import ensure_packages
from dev.steps import StepError

PACKAGES = ("chromium", "fonts-dejavu-core")


def ensure_chromium() -> Path:
    """The program; installed by apt where it is not there yet."""
    found = shutil.which("chromium")
    if found is None:
        ensure_packages(PACKAGES)
        found = shutil.which("chromium")
    if found is None:
        raise StepError(
            "the package chromium has no program 'chromium'", remedy="install Chromium, so that it is on PATH"
        )
    return Path(found)
