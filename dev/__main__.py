"""What the Makefile calls."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dev import cluster, demo, images, quantizing, testing
from dev.paths import CACHE, REPO
from dev.steps import StepError, report, run, step

GENERATORS = (
    ("dev.engineargs",),
    ("largeforge.api.crds", "crds"),
    ("largeforge.api.crds", "charts/largeforge/files/crds"),
    ("dev.reference",),
    ("dev.metricspage",),
    ("dev.reasons",),
    ("dev.routerapi",),
    ("dev.argocd",),
    ("dev.chartreadme",),
    ("dev.chart",),
)
GENERATED = (
    "crds",
    "charts/largeforge/files",
    "charts/largeforge/README.md",
    "docs/reference.md",
    "docs/metrics.md",
    "docs/reasons.md",
    "docs/router-api.md",
    "tests/golden",
)


def generate() -> int:
    """Write everything that is generated."""
    for module, *arguments in GENERATORS:
        with step(f"generate: {module} {' '.join(arguments)}"):
            subprocess.run([sys.executable, "-m", module, *arguments], cwd=REPO, check=True)
    command = [sys.executable, "-m", "pytest", "--quiet", "--update-golden", "tests/golden"]
    return subprocess.run(command, cwd=REPO, check=False).returncode


def verify() -> int:
    """Fail where generating again would change a file."""
    with TemporaryDirectory() as kept:
        for name in GENERATED:
            source = REPO / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, Path(kept) / name.replace("/", "_"))
        if generate() != 0:
            return 1
        for name in GENERATED:
            before = Path(kept) / name.replace("/", "_")
            done = subprocess.run(["diff", "-r", "-u", before, REPO / name], check=False)
            if done.returncode != 0:
                print(f"{name} was not current; it is now: commit it", file=sys.stderr)
                return 1
    return 0


def build_images() -> int:
    """Build the images, and load them where a cluster is up."""
    images.check_disk()
    images.build()
    images.load()
    return 0


def down() -> int:
    """Undo what the cluster and the builds did to the machine; what was built stays cached."""
    cluster.down()
    images.release()
    return 0


def clean() -> int:
    """Remove the caches."""
    with step(f"remove {CACHE}"):
        # Not shutil.rmtree: it would walk into whatever is mounted there.
        run("rm", "-rf", "--one-file-system", CACHE)
    return 0


def main() -> int:
    """Do what the first argument says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    parser.add_argument(
        "what",
        choices=("up", "down", "images", "demo", "demo-quantize", "env", "generate", "verify", "lint", "test", "clean"),
        help="what to do; the Makefile's targets have the same names",
    )
    parser.add_argument("part", nargs="?", choices=tuple(testing.PARTS), help="the part of the tests, for test")
    arguments = parser.parse_args()
    actions = {
        "up": cluster.up,
        "down": down,
        "images": build_images,
        "demo": demo.demo,
        "demo-quantize": quantizing.demo_quantize,
        "env": demo.print_environment,
        "generate": generate,
        "verify": verify,
        "lint": testing.lint,
        "test": lambda: testing.run_parts([arguments.part] if arguments.part else testing.ORDER),
        "clean": clean,
    }
    try:
        return actions[arguments.what]() or 0
    except StepError as error:
        return report(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
