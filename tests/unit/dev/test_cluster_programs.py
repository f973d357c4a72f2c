import re
from pathlib import Path

import pytest

from dev.cluster import programs


def go_mod(module: str) -> str:
    return (programs.MODULES / module / "go.mod").read_text()


def test_versions_are_those_of_the_go_modules() -> None:
    wrong = []
    for program in programs.PROGRAM_LIST:
        required = re.findall(r"^(?:require |\t)(\S+) v(\S+)", go_mod(program.module), re.MULTILINE)
        versions = {path: version for path, version in required if program.package.startswith(path)}
        if program.module != "pause" and set(versions.values()) != {program.version}:
            wrong.append((program.name, versions))
    assert wrong == []


def test_all_staging_modules_are_replaced_by_the_same_release() -> None:
    replaced = re.findall(r"^\tk8s\.io/(\S+) => k8s\.io/(\S+) (\S+)$", go_mod("kubernetes"), re.MULTILINE)
    assert {version for _, _, version in replaced} == {"v0." + programs.KUBERNETES.removeprefix("1.")}
    assert [(old, new) for old, new, _ in replaced if old != new] == []


def test_each_module_names_its_programs_as_tools() -> None:
    missing = [
        program.name
        for program in programs.PROGRAM_LIST
        if program.module != "pause" and program.package not in go_mod(program.module).split()
    ]
    assert missing == []


def test_build_command_of_a_kubernetes_program() -> None:
    flags = (
        "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 "
        "-X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean "
        "-X k8s.io/client-go/pkg/version.gitVersion=v1.37.2 -X k8s.io/client-go/pkg/version.gitMajor=1 "
        "-X k8s.io/client-go/pkg/version.gitMinor=37 -X k8s.io/client-go/pkg/version.gitTreeState=clean"
    )
    assert programs.ALL["kubelet"].build_command("/go", Path("/out")) == [
        *("/go", "build", "-trimpath", f"-ldflags={flags}", "-o", "/out", "k8s.io/kubernetes/cmd/kubelet"),
    ]


def test_build_command_with_tags() -> None:
    assert programs.ALL["ctr"].build_command("go", Path("/out")) == [
        *("go", "build", "-trimpath", "-ldflags=-s -w -X github.com/containerd/containerd/v2/version.Version=v2.3.7"),
        *("-tags=no_btrfs,no_devmapper,no_zfs", "-o", "/out", "github.com/containerd/containerd/v2/cmd/ctr"),
    ]


@pytest.mark.parametrize(
    ("text", "version"),
    [("go1.26.8", (1, 26, 8)), ("go1.27rc1", (1, 27)), ("go version go1.19 linux/amd64", (1, 19)), ("", ())],
)
def test_go_version(text: str, version: tuple[int, ...]) -> None:
    assert programs.parse_go_version(text) == version


def test_debians_go_is_too_old() -> None:
    assert programs.parse_go_version("go1.19.8") < programs.OLDEST_GO < programs.parse_go_version("go1.27.3")


def fake(folder: Path, name: str, output: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{output}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("output", "used"),
    [
        ("Client Version: v1.37.2", True),
        ("Client Version: v1.32.4-dispatcher", False),
        ("Client Version: v1.37.2-gke.1", False),
        ("Client Version: v11.37.2", False),
        ("Client Version: v1.37.20", False),
    ],
)
def test_program_on_path_is_used_at_the_wanted_version_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output: str, *, used: bool
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    found = fake(there, "kubectl", output)
    monkeypatch.setattr(programs, "PROGRAMS", tmp_path)
    monkeypatch.setattr(programs, "BIN", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{there}:/usr/bin:/bin")
    built = []

    def build(program: programs.Program) -> None:
        built.append(program.name)
        fake(tmp_path, program.path.name, "built")

    monkeypatch.setattr(programs, "_build", build)
    programs.ensure_programs(["kubectl"])
    assert built == ([] if used else ["kubectl"])
    assert (tmp_path / "bin" / "kubectl").resolve() == (found if used else tmp_path / "kubectl-1.37.2")
    programs.ensure_programs(["kubectl"])
    assert len(built) <= 1


def test_new_version_replaces_the_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", tmp_path)
    monkeypatch.setattr(programs, "BIN", tmp_path / "bin")
    monkeypatch.setattr(programs, "_build", lambda program: fake(tmp_path, program.path.name, "built"))
    (tmp_path / "bin").mkdir()
    fake(tmp_path, "pause-0", "old")
    (tmp_path / "bin" / "pause").symlink_to("../pause-0")
    programs.ensure_programs(["pause"])
    assert (tmp_path / "bin" / "pause").readlink() == Path("../pause-1")
