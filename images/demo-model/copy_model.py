# ruff: noqa: INP001, T201 - a program by itself
"""
Copy the model of this image to a directory, so that it is there as a whole or not at all.

Usage: copy_model.py TARGET [SOURCE]

TARGET's parent is where the volume is mounted; SOURCE is /model. A second run finds the same files and does nothing.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Copy; the exit code."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print("usage: copy_model.py TARGET [SOURCE]", file=sys.stderr)
        return 2
    target = Path(arguments[0]).absolute()
    source = Path(arguments[1] if len(arguments) == 2 else "/model")
    if same_files(source, target):
        print(f"{target} is up to date")
        return 0
    copy(source, target)
    print(f"copied {source} to {target}")
    return 0


def same_files(source: Path, target: Path) -> bool:
    """Whether *target* holds exactly the files of *source*, byte by byte."""
    if not target.is_dir():
        return False
    names = sorted(path.name for path in source.iterdir())
    if names != sorted(path.name for path in target.iterdir()):
        return False
    equal, _, _ = filecmp.cmpfiles(source, target, names, shallow=False)
    return sorted(equal) == names


def copy(source: Path, target: Path) -> None:
    """Copy beside *target*, flush, then rename: a reader never sees half a model."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        fresh = Path(folder, "new")
        fresh.mkdir(mode=0o755)
        for path in sorted(source.iterdir()):
            shutil.copyfile(path, fresh / path.name)
            _flush(fresh / path.name)
        if target.exists():
            target.rename(Path(folder, "old"))
        fresh.rename(target)
        _flush(target.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
