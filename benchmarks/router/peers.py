"""The router and its peers: how each is started in front of the engine, and how it is asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compiled import command
from install import ROOT

KEY = "benchmark-key-0123456789"
START_SECONDS = 60
EXPERTS = 10
PATTERNS = 20
"""Of each expert: 200 in all."""
ROUTER_CORE = 1
CLIENT_CORE = 0


class StartError(Exception):
    """A peer does not listen."""


@dataclass
class Peer:
    """One that can be put between the client and the engine."""

    name: str
    argv: Callable[[Path, int, int], list[str]]
    """Its command, from a folder of its own, its port and the engine's."""
    version: str = ""
    model: str = "m"
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})
    """What a client sends; those that know no keys let this one through."""
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    """What `install.py` makes; nothing where it is our own."""

    @property
    def installed(self) -> bool:
        """Whether it can be started."""
        return not self.needs or (ROOT / self.needs / ".installed").exists()


class Process:
    """A peer that runs on its own core."""

    def __init__(self, peer: Peer, folder: Path, engine_port: int) -> None:
        self.peer = peer
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HOME": str(folder), **peer.environment, "LARGEFORGE_PORT": str(self.port)}
        with (folder / "log").open("wb") as log:
            self._popen = subprocess.Popen(
                ["taskset", "--cpu-list", str(ROUTER_CORE), *peer.argv(folder, self.port, engine_port)],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._log = folder / "log"
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._popen.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.stop()
        raise StartError(f"{self.peer.name} does not listen: {self._log.read_text(errors='replace')[-400:]}")

    def cpu_seconds(self) -> float:
        """Of all its processes, user and system, to the nanosecond where the kernel says so."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._pids())  # CPUCLOCK_SCHED of a process

    def memory_bytes(self) -> int:
        """What is its own, of all its processes."""
        return sum(_private_bytes(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        found = [self._popen.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def signal(self, number: int) -> None:
        """Send it a signal; what it has started gets none."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """End it, and what it has started."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, 15)
            try:
                self._popen.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self._popen.pid, 9)
                self._popen.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _private_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines()[1:])
    return sum(int(lines[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024


def documents(engine_port: int, *, patterns: bool = True, **spec: object) -> list[object]:
    """A table of ten Experts, each with 20 patterns and *spec*."""
    found: list[object] = [
        {
            "kind": "Expert",
            "metadata": {"name": f"expert-{number}"},
            "spec": {
                "type": "Adapter",
                "sourceRef": {"kind": "FineTuneJob", "name": "job"},
                "inferenceServiceRef": {"name": "service"},
                "routing": {"fallback": number == 0, "keywords": _keywords(number) if patterns else []},
                **spec,
            },
        }
        for number in range(EXPERTS)
    ]
    engine = {"service": "service", "url": f"http://127.0.0.1:{engine_port}", "key": "the-engines-key"}
    return [*found, {"endpoints": [engine]}]


LIMITS = {"maxConcurrentRequests": 5000, "timeoutSeconds": 600}


def _keywords(expert: int) -> list[dict[str, str]]:
    """Patterns that are not in the prompt, but for one of expert 7: words, phrases, and a quarter Literals."""
    found = [f"keyword{expert}x{number}" for number in range(PATTERNS)]
    found[1::4] = [f"{word} and more" for word in found[1::4]]
    return [{"pattern": word, "type": "Literal" if at % 4 == 3 else "Word"} for at, word in enumerate(found)]


def router(folder: Path, port: int, table: Sequence[object], *, compiled: bool = True) -> list[str]:
    """The command of our own router with a *table*."""
    (folder / "clients").mkdir()
    (folder / "clients" / "team").write_text(KEY + "\n")
    (folder / "table.yaml").write_text(json.dumps(table))  # JSON is YAML
    return [
        *(*command(compiled=compiled), "--table", str(folder / "table.yaml"), "--host", "127.0.0.1"),
        *("--port", str(port), "--health-port", str(free_port())),
    ]


def _ours(folder: Path, port: int, engine_port: int) -> list[str]:
    return router(folder, port, documents(engine_port, limits=LIMITS))


def _nginx(folder: Path, port: int, engine_port: int) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 8m; client_body_buffer_size 1m;
  {paths}
  keepalive_requests 100000000;
  upstream engine {{ server 127.0.0.1:{engine_port}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=2048;
    location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s; }} }}
}}
"""
    )
    return [str(ROOT / "nginx/usr/sbin/nginx"), "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def _rust(*command: str) -> Callable[[Path, int, int], list[str]]:
    """The three routers in Rust have the same options. Their logs are off; all else is as they come."""

    def argv(folder: Path, port: int, engine_port: int) -> list[str]:
        del folder
        program, *rest = command
        return [
            *(str(ROOT / program), *rest, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"),
            *("--worker-urls", f"http://127.0.0.1:{engine_port}", "--prometheus-port", str(free_port())),
            *("--max-concurrent-requests", "5000"),
        ]

    return argv


def _portkey(folder: Path, port: int, engine_port: int) -> list[str]:
    del folder, engine_port
    script = ROOT / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    return ["node", str(script), f"--port={port}", "--headless"]


def _litellm(folder: Path, port: int, engine_port: int) -> list[str]:
    model = {"model": "openai/m", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "x"}
    config = {
        "model_list": [{"model_name": "m", "litellm_params": model}],
        "general_settings": {"master_key": f"sk-{KEY}"},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    return [
        *(str(ROOT / "litellm/bin/litellm"), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1"),
        *("--port", str(port), "--num_workers", "1"),
    ]


def peers(engine_port: int) -> dict[str, Peer]:
    """All of them, ours first."""
    found = [
        Peer(
            "largeforge",
            _ours,
            "this tree",
            model="auto",
            environment={
                "LARGEFORGE_CLIENTS_DIR": "clients",
                "LARGEFORGE_MAX_REQUESTS_PER_CLIENT": "5000",
            },
        ),
        Peer("nginx", _nginx, "1.22", needs="nginx"),
        Peer("vllm-router", _rust("vllm-router/bin/vllm-router"), "0.1.17", needs="vllm-router"),
        Peer(
            "vllm-router-rr",
            _rust("vllm-router/bin/vllm-router", "--policy", "round_robin"),
            "0.1.17, round robin",
            needs="vllm-router",
        ),
        Peer(
            "sglang-router",
            _rust("sglang-router/bin/python", "-m", "sglang_router.launch_router"),
            "0.3.2",
            needs="sglang-router",
        ),
        Peer("smg", _rust("smg/bin/smg", "launch"), "1.13.0", needs="smg"),
        Peer(
            "portkey",
            _portkey,
            "1.15.2",
            headers={
                "Authorization": f"Bearer {KEY}",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{engine_port}/v1",
            },
            environment={"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
            needs="portkey",
        ),
        Peer(
            "litellm",
            _litellm,
            "1.108.7",
            headers={"Authorization": f"Bearer sk-{KEY}"},
            environment={
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_LOG": "ERROR",
                "DISABLE_SCHEMA_UPDATE": "true",
            },
            needs="litellm",
        ),
    ]
    return {peer.name: peer for peer in found}
