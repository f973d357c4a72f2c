"""Renders of the chart for known values: `python -m dev.chart` writes them, a test compares them.

The CRDs are left out: they are the files in `crds/`, which another test holds.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from dev.cluster.programs import ensure_programs, program
from dev.paths import REPO

CHART = REPO / "charts" / "largeforge"
SETS = REPO / "tests" / "golden" / "chart"
"""`<name>.values.yaml` beside `<name>.yaml`, its render."""
RELEASE = "largeforge"
NAMESPACE = "largeforge-system"


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm, without a cluster and without the settings of whoever runs it."""
    return subprocess.run(
        [program("helm"), *arguments],
        env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "KUBECONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        check=False,
    )


def template(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`helm template` of our chart under the release's usual name."""
    return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, *arguments)


def value_sets() -> dict[str, Path]:
    """Name to file of the known values."""
    return {path.name.removesuffix(".values.yaml"): path for path in sorted(SETS.glob("*.values.yaml"))}


def render(values: Path) -> str:
    """The chart with *values*, hooks included."""
    done = template("--values", values, "--set", "crds.install=false")
    if done.returncode != 0:
        raise ValueError(f"{values.name}: {done.stderr}")
    return done.stdout


def main() -> None:
    ensure_programs(("helm",))
    for name, values in value_sets().items():
        (SETS / f"{name}.yaml").write_text(render(values))


if __name__ == "__main__":
    main()
