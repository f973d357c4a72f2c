"""Install the router's peers, each in a folder of its own, so that `measure.py` can run them beside it.

    python benchmarks/router/install.py [NAME ...]

They come from the package registries that pip, npm and apt are configured for, into ~/.cache/largeforge/bench
(`LARGEFORGE_CACHE` names another folder); nothing of the project's environment is touched. One that cannot be
installed is named at the end, and is missing from the table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(os.environ.get("LARGEFORGE_CACHE", Path.home() / ".cache" / "largeforge")) / "bench"
PYTHON_PEERS = {
    "vllm-router": ("vllm-router==0.1.17",),
    "sglang-router": ("sglang-router==0.3.2",),
    "smg": ("smg==1.13.0",),
    "litellm": ("litellm[proxy]==1.108.7",),
}
NODE_PEERS = {"portkey": "@portkey-ai/gateway@1.15.2"}
SECONDS = 600


def install_nginx() -> None:
    """Unpack Debian's package, without installing it on the machine."""
    folder = ROOT / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", "nginx"], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "--extract", str(package), str(folder)], folder)
        package.unlink()


def install_python(name: str, packages: tuple[str, ...]) -> None:
    """Make a virtual environment for *name*."""
    folder = ROOT / name
    venv.create(folder, with_pip=True, clear=True)
    _run([str(folder / "bin" / "pip"), "install", "--quiet", "--no-compile", *packages], folder)


def install_node(name: str, package: str) -> None:
    """Make a folder with *package* and what it needs."""
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    _run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", package], folder)


def steps() -> dict[str, Callable[[], None]]:
    """How to install each peer."""
    found: dict[str, Callable[[], None]] = {"nginx": install_nginx}
    for name, packages in PYTHON_PEERS.items():
        found[name] = lambda name=name, packages=packages: install_python(name, packages)  # type: ignore[misc]
    for name, package in NODE_PEERS.items():
        found[name] = lambda name=name, package=package: install_node(name, package)  # type: ignore[misc]
    return found


def main() -> int:
    """Install those that are named, or all; the exit code says whether all are there."""
    known = steps()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(known)}; none means all")
    names = parser.parse_args().names or list(known)
    unknown = sorted(set(names) - known.keys())
    if unknown:
        parser.error(f"no peer is called {unknown[0]}; there are {', '.join(known)}")
    failed = []
    for name in names:
        started = time.monotonic()
        done = ROOT / name / ".installed"
        if done.exists():
            print(f"{name}: is there", flush=True)
            continue
        shutil.rmtree(ROOT / name, ignore_errors=True)
        try:
            known[name]()
            done.touch()
            print(f"{name}: installed in {time.monotonic() - started:.0f} s", flush=True)
        except (OSError, subprocess.SubprocessError) as error:
            failed.append(name)
            print(f"{name}: not installed: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _run(argv: list[str], folder: Path) -> None:
    subprocess.run(argv, cwd=folder, check=True, timeout=SECONDS)


if __name__ == "__main__":
    sys.exit(main())
