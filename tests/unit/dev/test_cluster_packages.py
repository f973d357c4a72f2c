from pathlib import Path

import pytest

from dev import packages
from dev.steps import StepError


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with `runc`, half-removed `nftables`, and an apt-get that writes down its calls."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    tool(tmp_path, "dpkg-query", "echo 'runc installed'; echo 'nftables config-files'; exit 1")
    tool(tmp_path, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/calls')
    monkeypatch.setattr(packages.os, "geteuid", lambda: 0)
    return tmp_path


def calls(machine: Path) -> list[str]:
    file = machine / "calls"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.usefixtures("machine")
def test_missing_packages_are_those_that_dpkg_does_not_call_installed() -> None:
    assert packages.missing_packages(["runc", "nftables", "conntrack"]) == ["nftables", "conntrack"]


def test_nothing_is_fetched_when_nothing_is_missing(machine: Path) -> None:
    packages.ensure_packages(["runc"])
    assert calls(machine) == []


def test_only_what_is_missing_is_installed(machine: Path) -> None:
    packages.ensure_packages(["runc", "conntrack"])
    common = "noninteractive --quiet -o DPkg::Lock::Timeout=300"
    assert calls(machine) == [f"{common} update", f"{common} install --yes --no-install-recommends conntrack"]


def test_failure_says_what_to_run(machine: Path) -> None:
    tool(machine, "apt-get", "echo 'Could not resolve' >&2; exit 100")
    with pytest.raises(StepError, match="Could not resolve") as caught:
        packages.ensure_packages(["conntrack"])
    assert "apt-get install --no-install-recommends conntrack" in caught.value.remedy


def test_ordinary_user_is_told_what_to_run_as_root(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
    with pytest.raises(StepError) as caught:
        packages.ensure_packages(["conntrack"])
    assert caught.value.remedy == "as root, run: apt-get install --no-install-recommends conntrack"
    assert calls(machine) == []
