"""A real API server with our CRDs, and kubectl against it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.cluster.apiserver import api_server
from dev.cluster.programs import program

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Server:
    """kubectl against the API server of this test run."""

    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program("kubectl"), *arguments],
            env={"KUBECONFIG": str(self.kubeconfig), "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def apply(self, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """What `kubectl apply` would do, without doing it."""
        return self.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with api_server() as kubeconfig:
        server = Server(kubeconfig)
        done = server.kubectl("apply", "--server-side", "-f", str(REPO / "crds"))
        assert done.returncode == 0, done.stderr
        done = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert done.returncode == 0, done.stderr
        yield server
