"""Our package as the router's image has it: compiled, and run by the system's Python where that is the image's.

A development environment's Python may be built without the optimisations that a distribution's has, which costs the
router a sixth. The compiled copy lies beside the peers under a digest of the source: a changed tree is measured as it
is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from install import ROOT

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "operator" / "largeforge"
COMPILE = REPO / "images" / "router" / "compile" / "compile.py"
SYSTEM = Path("/usr/bin/python3.11")
HEADERS = Path("/usr/include/python3.11/Python.h")
SITE_PACKAGES = sysconfig.get_path("purelib")
"""What the router needs, from the environment that measures."""


def python() -> str:
    """The interpreter that ours is run by."""
    return str(SYSTEM) if SYSTEM.exists() and HEADERS.exists() and sys.version_info[:2] == (3, 11) else sys.executable


@cache
def site() -> Path:
    """The folder with the compiled package; made where it is not there, which takes half a minute."""
    digest = hashlib.sha256(COMPILE.read_bytes() + python().encode())
    for path in sorted(SOURCE.rglob("*.py")):
        digest.update(str(path.relative_to(SOURCE)).encode() + path.read_bytes())
    made = ROOT / "largeforge" / digest.hexdigest()[:12]
    if made.exists():
        return made
    shutil.rmtree(made.parent, ignore_errors=True)
    made.parent.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        aside = Path(folder) / "site"
        shutil.copytree(SOURCE, aside / "largeforge", ignore=shutil.ignore_patterns("__pycache__"))
        print("compile the router", file=sys.stderr, flush=True)
        done = subprocess.run(
            [python(), str(COMPILE), str(aside)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": SITE_PACKAGES},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{COMPILE} failed; it needs gcc and the headers of {python()}:\n{done.stderr[-2000:]}")
        aside.rename(made)
    return made


def command(*, compiled: bool = True) -> list[str]:
    """What starts the router, without its arguments."""
    path = site() if compiled else REPO / "operator"
    return ["env", f"PYTHONPATH={path}:{SITE_PACKAGES}", python(), "-m", "largeforge.router"]
