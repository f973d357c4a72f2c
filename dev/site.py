"""`make site`: the documents as static files that ask no other address."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import venv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dev.paths import CACHE, REPO
from dev.steps import StepError, report, run, step

CONFIG = REPO / "docs" / "site.toml"
STYLE = Path("docs/site.css")
LOCK = REPO / "docs" / "requirements.lock"
BUILT = REPO / "build" / "docs"
"""Holds the copies of the pages, and in `site` what is made of them."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def pages() -> Iterator[Path]:
    """Every page of the repository that is written for people, as a path in it."""
    yield from sorted(page.relative_to(REPO) for page in REPO.glob("*.md"))
    for folder in ("docs", "examples", "benchmarks", "charts"):
        yield from sorted(page.relative_to(REPO) for page in (REPO / folder).rglob("*.md"))


def copies() -> dict[Path, bytes]:
    """
    What the site is made of: the pages, and the files that they link to, at the paths that they have here.

    A link to a folder becomes one to its page, as the hosts of repositories show it.
    """
    found = {STYLE: (REPO / STYLE).read_bytes()}
    for page in pages():
        folder = (REPO / page).parent
        text = (REPO / page).read_text()
        found[page] = _LINK.sub(partial(_page_of, folder), text).encode()
        for link in _LINK.findall(text):
            target = (folder / link).resolve()
            if target.is_file() and target.suffix != ".md" and target.is_relative_to(REPO):
                found[target.relative_to(REPO)] = target.read_bytes()
    return found


def _page_of(folder: Path, found: re.Match[str]) -> str:
    link = found[0]
    return f"{link.rstrip('/')}/README.md" if (folder / link / "README.md").is_file() else link


def build() -> Path:
    """Build the site, strictly; its folder."""
    program = _program()
    with step("build the site"):
        shutil.rmtree(BUILT, ignore_errors=True)
        for path, content in copies().items():
            at = BUILT / "pages" / path
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(content)
        shutil.copy(CONFIG, BUILT / "zensical.toml")
        run(
            *(program, "build", "--strict", "--clean"),
            env=os.environ | {"NO_COLOR": "1"},
            cwd=BUILT,
            remedy="mend the link or heading that is named above; paths are those of the repository",
        )
    return BUILT / "site"


def _program() -> Path:
    """Zensical as its lock says, in an environment of its own that all checkouts share."""
    folder = CACHE / "site" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    program = folder / "bin" / "zensical"
    if not program.exists():
        with step(f"install {LOCK.relative_to(REPO)}"):
            venv.create(folder, with_pip=True, clear=True)
            run(
                *(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", LOCK),
                remedy="see pip's message; behind a proxy or a private CA set HTTPS_PROXY and PIP_CERT",
            )
    return program


def main() -> int:
    """Build the site and say where it is; the exit code."""
    try:
        print(f"{build() / 'index.html'}")
    except StepError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
