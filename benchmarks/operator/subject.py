"""A process that is measured: our operator, or the yardstick."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dev.paths import REPO

IMAGES = ("TRAINER", "ENGINE", "ENGINE_CPU", "QUANTIZER", "QUANTIZER_AUTOAWQ")
START_SECONDS = 120.0
HERE = Path(__file__).parent


class Subject:
    """One process, from its start to `stop`."""

    def __init__(self, command: Sequence[str], kubeconfig: Path, folder: Path, variables: Mapping[str, str]) -> None:
        environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(folder), "PATH": os.environ["PATH"], **variables}
        self.began = time.monotonic()
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, cwd=REPO, stdout=log, stderr=log)
        self._log = folder / "log"

    def says(self, text: str) -> bool:
        """Whether its log has *text*."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended: {self._log.read_text()[-2000:]}")
        return text in self._log.read_text()

    def resident_mb(self) -> float:
        """All that it has in memory, shared libraries too."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:")) / 1024

    def cpu_seconds(self) -> float:
        """User and system time."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Kill it: a benchmark keeps nothing of it."""
        self._process.kill()
        self._process.wait(30)


class Operator(Subject):
    """Ours, with its metrics."""

    def __init__(self, kubeconfig: Path, folder: Path, namespaces: Sequence[str], resync_seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "master-key"
        key.write_bytes(secrets.token_bytes(32))
        self._port = _free_port()
        variables = {f"LARGEFORGE_{image}_IMAGE": f"{image.lower()}:1" for image in IMAGES} | {
            "LARGEFORGE_MASTER_KEY_FILE": str(key),
            "LARGEFORGE_PORT": str(self._port),
            "LARGEFORGE_NAMESPACES": ",".join(namespaces),
            "LARGEFORGE_RESYNC_SECONDS": str(resync_seconds),
        }
        super().__init__([sys.executable, "-m", "largeforge.controllers"], kubeconfig, folder, variables)

    def ready(self) -> bool:
        """Whether it says so; its log is looked at for an early end."""
        self.says("")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """Every series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30) as response:
            text = response.read().decode()
        return [(s.name, s.labels, s.value) for family in text_string_to_metric_families(text) for s in family.samples]

    def requests(self, *verbs: str, without: Sequence[str] = ()) -> int:
        """How many it has sent, of *verbs* (all by default), but for the resources *without*."""
        return int(
            sum(
                value
                for name, labels, value in self.metrics()
                if name == "largeforge_operator_api_requests_total"
                and (not verbs or labels["verb"] in verbs)
                and labels["resource"] not in without
            )
        )

    def total(self, name: str, **chosen: str) -> float:
        """The sum of a metric's series."""
        full = f"largeforge_operator_{name}"
        return sum(v for n, labels, v in self.metrics() if n == full and chosen.items() <= labels.items())


def yardstick(kubeconfig: Path, folder: Path, namespace: str) -> Subject:
    """The ten lines, run as kopf runs them."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "kopf", "run", "--namespace", namespace, str(HERE / "yardstick.py")]
    return Subject([*command, "--standalone", "--verbose"], kubeconfig, folder, {})


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
