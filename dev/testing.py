"""`make test`: its parts in order, each with its duration, and by name what could not run here."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dev import cluster, images
from dev.cluster.kind import engine_answers
from dev.cluster.programs import ensure_programs
from dev.install import install, provide_model
from dev.paths import CACHE, REPO
from dev.steps import StepError, step

E2E_NAMESPACE = "e2e"
RUNS_NAMESPACE = "e2e-runs"
"""Where the tests of FineTuneJob have theirs: it has no router, and no claim of the example."""
HUB = f"hub.{RUNS_NAMESPACE}.svc"
"""The host of the hub that these tests start."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the tests: how to prepare it and what to run."""

    title: str
    commands: tuple[tuple[str, ...], ...]
    prepare: Callable[[], None] = lambda: None
    cluster: bool = False


def prepare_programs() -> None:
    """What tests without a node need: etcd, kube-apiserver, kubectl, helm."""
    ensure_programs(("etcd", "kube-apiserver", "kubectl", "helm"))


def prepare_cluster() -> None:
    """
    A cluster without earlier objects, LargeForge on it, and a base model in the tests' namespace.

    What a demo or a run that was killed has left takes processors and memory of the only node: pods of the tests
    would wait for them.
    """
    images.check_disk()
    cluster.renew()
    cluster.up()
    images.build()
    images.load()
    install(E2E_NAMESPACE, hub=f"http://{HUB}")
    provide_model(E2E_NAMESPACE)


def prepare_autoawq() -> None:
    """The cluster, and in it the image that is built only where it is named."""
    prepare_cluster()
    images.load(images.build(["quantizer-autoawq"]).values())


LINT = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("lint-imports",),
    ("yamllint", "--strict", "-c", "dev/yamllint.yaml", "crds", "examples", "charts/largeforge/values.yaml"),
)
PARTS: dict[str, Part] = {
    "lint": Part("lint: ruff, import rule, YAML", LINT),
    "types": Part("types: mypy, strict", (("mypy",),)),
    "unit": Part(
        "unit and golden tests, and the same few seconds of fuzzing",
        (("pytest", "tests/unit", "tests/golden"), ("pytest", "tests/fuzz", "-m", "not long")),
        prepare_programs,
    ),
    "integration": Part(
        "integration: a real kube-apiserver and etcd",
        (("pytest", "tests/integration", "-m", "not long"),),
        prepare_programs,
    ),
    "e2e": Part(
        "end to end: the local cluster, real pods",
        (("pytest", "tests/e2e", "-m", "not long and not autoawq"),),
        prepare_cluster,
        cluster=True,
    ),
    "long": Part(
        "long: what is too long for make test", (("pytest", "tests", "-m", "long"),), prepare_cluster, cluster=True
    ),
    "autoawq": Part(
        "AutoAWQ, in an image of its own",
        (("pytest", "tests/e2e/test_autoawq.py"),),
        prepare_autoawq,
        cluster=True,
    ),
    "fuzz": Part(
        "fuzz: other examples each time, and bytes that coverage leads to",
        (
            ("pytest", "tests/fuzz", "--hypothesis-profile=fuzz"),
            *(("python", "-m", "tests.fuzz.atheris_bytes", name, "120") for name in ("body", "head")),
        ),
    ),
}
ORDER = ("lint", "types", "unit", "integration", "e2e")


def run_part(name: str) -> bool:
    """Prepare and run one part; whether all of it passed."""
    part = PARTS[name]
    with alone() if part.cluster else nullcontext():
        part.prepare()
        tools = Path(sys.executable).parent  # the programs of .venv
        environment = dict(os.environ)
        if part.cluster:
            environment["KUBECONFIG"] = str(cluster.kubeconfig())
        print(f"==> {part.title}", flush=True)
        return all(
            subprocess.run([tools / command[0], *command[1:]], cwd=REPO, env=environment, check=False).returncode == 0
            for command in part.commands
        )


@contextmanager
def alone() -> Iterator[None]:
    """One session of tests at a time on the cluster: two would delete each other's objects."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "e2e.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("==> wait for another session of tests on this cluster", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_parts(names: Sequence[str]) -> int:
    """Run the parts in order, all of them even where one fails; the exit code."""
    lines: list[str] = []
    failed = False
    for name in names:
        started = time.monotonic()
        try:
            passed = run_part(name)
        except StepError as error:
            print(f"\nfailed: {error}\nwhat to do: {error.remedy}", file=sys.stderr, flush=True)
            passed = False
        failed = failed or not passed
        lines.append(f"    {'passed' if passed else 'FAILED'}  {name:12} {time.monotonic() - started:6.0f} s")
    print("\n==> what ran", *lines, sep="\n")
    missing = not_run_here()
    if missing:
        print("==> what cannot run on this machine", *(f"    {line}" for line in missing), sep="\n")
    return 1 if failed else 0


def not_run_here() -> list[str]:
    """The parts of the product that no test reaches on this machine, with the reason."""
    missing = []
    if not os.path.exists("/dev/nvidia0"):  # noqa: PTH110 - a device, not a file of ours
        missing.append("training and serving on a GPU: there is no /dev/nvidia0 here")
    if not engine_answers():
        missing.append("the kind cluster: no Docker engine answers here; its configuration is unit-tested")
    return missing


def lint() -> int:
    """The lint part alone."""
    with step("lint"):
        return 0 if run_part("lint") else 1
