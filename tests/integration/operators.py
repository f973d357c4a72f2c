"""Operators as processes, as pods would run them: tests stop, kill and watch them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.integration.conftest import REPO, Server

SECONDS = 120.0
"""What a test waits for at most: a busy machine is slow, and a test that waits for nothing fails."""
IMAGES = ("TRAINER", "ENGINE", "ENGINE_CPU", "QUANTIZER", "QUANTIZER_AUTOAWQ")


def until(holds: Callable[[], bool], say: Callable[[], object]) -> None:
    """Wait for *holds*; *say* what there is instead when the time is over."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, say()
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def account(name: str, namespace: str) -> dict[str, Any]:
    """A service account."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def credentials(server: Server, name: str, namespace: str, folder: Path) -> Path:
    """A kubeconfig of the service account *name*, in *folder*."""
    token = server.kubectl("create", "token", name, "-n", namespace).stdout.strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = folder / f"{namespace}.{name}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Operator:
    """One process, its log and the port of its probes."""

    name: str
    process: subprocess.Popen[bytes]
    said: Path
    port: int

    def log(self) -> str:
        return self.said.read_text()

    def says(self, text: str) -> None:
        """Wait until the log has *text*."""
        until(lambda: text in self.log() or self.process.poll() is not None, self.log)
        assert text in self.log(), self.log()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        until(lambda: self.process.poll() is not None, self.log)
        code: int = self.process.returncode
        return code


@contextmanager
def operator(
    kubeconfig: Path, folder: Path, name: str, variables: Mapping[str, str] | None = None
) -> Iterator[Operator]:
    """An operator with the credentials of *kubeconfig*; it is killed at the end, if it still runs."""
    home = folder / name
    home.mkdir(exist_ok=True)
    key = folder / "master-key"
    if not key.exists():
        key.write_bytes(secrets.token_bytes(32))
    port = free_port()
    environment = {f"LARGEFORGE_{image}_IMAGE": f"{image.lower()}:1" for image in IMAGES} | {
        "LARGEFORGE_MASTER_KEY_FILE": str(key),
        "LARGEFORGE_PORT": str(port),
        "KUBECONFIG": str(kubeconfig),
        "HOME": str(home),
        "PATH": os.environ["PATH"],
    }
    said = home / "operator.log"
    with said.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "largeforge.controllers"],
            env=environment | dict(variables or {}),
            cwd=REPO,
            stdout=out,
            stderr=out,
        )
    try:
        yield Operator(name, process, said, port)
    finally:
        process.kill()
        process.wait(30)
