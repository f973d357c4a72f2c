"""Cut a release: `python -m dev.release 0.1.0` keeps the chart and the package of HEAD in tests/e2e/releases/0.1.0.

A clone may lack tags, so what the tests of upgrades begin with lies in the repository.
"""

from __future__ import annotations

import argparse
import io
import lzma
import re
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.cluster.programs import ensure_programs, program
from dev.images.context import EPOCH, SITE, add_site
from dev.paths import REPO
from dev.steps import StepError, run, step

RELEASES = REPO / "tests" / "e2e" / "releases"
CHART = "chart.tgz"
PACKAGE = "site.tar.xz"
"""What `pip install --no-deps` makes of the wheel: half as large as the wheel."""
VERSION = r"[0-9]+\.[0-9]+\.[0-9]+"


def chart(version: str) -> Path:
    """The chart of a kept release."""
    return RELEASES / version / CHART


def unpack_package(version: str, folder: Path) -> None:
    """Put the package of a kept release into *folder*, for PYTHONPATH; its dependencies are those of today."""
    with tarfile.open(RELEASES / version / PACKAGE) as archive:
        archive.extractall(folder, filter="data")


def newest() -> str:
    """The version of the last release."""
    return max((path.name for path in RELEASES.iterdir()), key=lambda name: [int(part) for part in name.split(".")])


def cut(version: str) -> Path:
    """Keep HEAD as *version*; the folder."""
    changed = run("git", "status", "--porcelain", "--untracked-files=no", cwd=REPO)
    if changed.strip():
        raise StepError(
            f"there are changes that no commit has:\n{changed}", remedy="commit them: a release is a commit"
        )
    ensure_programs(("helm",))
    target = RELEASES / version
    target.mkdir(parents=True, exist_ok=True)
    with step(f"cut {version}"), TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        tree.mkdir()
        run("git", "archive", "--output", Path(folder, "tree.tar"), "HEAD", cwd=REPO)
        with tarfile.open(Path(folder, "tree.tar")) as archive:
            archive.extractall(tree, filter="data")
        _name(tree / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
        _name(tree / "operator" / "largeforge" / "__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"')
        add_site(tree)
        (target / PACKAGE).write_bytes(lzma.compress(_archive(tree / SITE), preset=9))
        _package_chart(tree / "charts" / "largeforge", version, target / CHART)
    return target


def _name(path: Path, pattern: str, line: str) -> None:
    text, count = re.subn(pattern, line, path.read_text(), count=1, flags=re.MULTILINE)
    if count != 1:
        raise StepError(f"{path.name} has no version", remedy="see dev/release.py")
    path.write_text(text)


def _archive(folder: Path) -> bytes:
    """The files of *folder* as a tar, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size, entry.mtime, entry.mode = path.stat().st_size, EPOCH, path.stat().st_mode & 0o777
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def _package_chart(source: Path, version: str, target: Path) -> None:
    with TemporaryDirectory() as folder:
        named = ("--version", version, "--app-version", version)
        run(program("helm"), "package", source, *named, "--destination", folder)
        (packed,) = Path(folder).glob("*.tgz")
        target.write_bytes(packed.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.release", description=__doc__)
    parser.add_argument("version", help="for example 0.1.0")
    version = parser.parse_args().version
    if not re.fullmatch(VERSION, version):
        parser.error(f"{version} is no version of three numbers, for example 0.1.0")
    kept = cut(version)
    for path in sorted(kept.iterdir()):
        print(f"{path.relative_to(REPO)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
