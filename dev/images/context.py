"""A copy of what the images are made of, with our package unpacked: the context of a build."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

from dev.images import catalog
from dev.steps import run

EPOCH = 1767225600
"""The time of every file in an image, and of the images: 2026-01-01."""

SITE = "build/site"
"""Where Dockerfiles find the unpacked package."""

_SCRIPT = """\
#!/opt/venv/bin/python
import sys

from {module} import {function}

sys.exit({function}())
"""


def snapshot(root: Path, context: Path) -> None:
    """
    Copy *root*'s inputs to the folder *context*.

    So a file that is saved during a build belongs wholly to the next one, and tags say what is inside.
    """
    shutil.copytree(
        root / "images", context / "images", ignore=shutil.ignore_patterns("__pycache__", ".*"), dirs_exist_ok=True
    )
    for path in (
        *catalog.package_files(root),
        *(root / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ):
        if path.is_file():
            copy = context / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    settle(context)


def add_site(context: Path) -> None:
    """Build the wheel of the package in *context* and unpack it to `SITE`."""
    site = context / SITE
    wheels = context / "build/wheel"
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", wheels, cwd=context, env=environment)
    (wheel,) = wheels.glob("*.whl")
    unpack(wheel, site)
    settle(context)


def unpack(wheel: Path, site: Path) -> None:
    """
    Install *wheel* into the folder *site*: what `pip install --no-deps` does, but with the same bytes each time.

    The README inside the metadata is left out, so that a better README makes no new images.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (info,) = site.glob("*.dist-info")
    metadata = info / "METADATA"
    metadata.write_text(metadata.read_text().partition("\n\n")[0] + "\n")
    (info / "RECORD").unlink()
    points = ConfigParser()
    points.read(info / "entry_points.txt")
    for name, target in points["console_scripts"].items() if points.has_section("console_scripts") else ():
        module, _, function = target.partition(":")
        script = site / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(_SCRIPT.format(module=module, function=function))
        script.chmod(0o755)


def settle(folder: Path) -> None:
    """One time and one set of modes for all in *folder*: neither a umask nor a fresh clone makes a new layer."""
    for path in [folder, *sorted(folder.rglob("*"))]:
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (EPOCH, EPOCH))
