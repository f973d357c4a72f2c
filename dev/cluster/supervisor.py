"""Keep a list of processes running: start each when its needs are met, start it again when it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from dev.cluster.components import Component

TICK_SECONDS = 0.1
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A component that ran for so long starts again at once, as if it had never failed."""

GRACE_SECONDS = 3.0
CONNECT_SECONDS = 1.0
LARGEST_LOG_BYTES = 16 * 1024 * 1024


@dataclass
class State:
    """How a component fares."""

    pid: int | None = None
    restarts: int = 0
    last_exit: int | None = None
    waits_for: str | None = None
    started: float = 0.0
    """All times are of `time.monotonic`, which is the machine's, not the process's."""
    not_before: float = 0.0


def backoff_seconds(failures: int) -> float:
    """How long to wait before the start after *failures* failures in a row."""
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** (failures - 1), LONGEST_BACKOFF_SECONDS)


def answers(address: str) -> bool:
    """Whether `https://HOST:PORT/PATH` says 200, `tcp:HOST:PORT` or `unix:PATH` connects, or `file:PATH` exists."""
    kind, _, place = address.partition(":")
    if kind == "file":
        return Path(place).exists()
    try:
        if kind == "https":
            return _says_ok(*place.removeprefix("//").split("/", 1))
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(CONNECT_SECONDS)
                client.connect(place)
        else:
            host, _, port = place.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, http.client.HTTPException):
        return False
    return True


def _says_ok(server: str, path: str) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, and it is the node's loopback
    connection = http.client.HTTPSConnection(server, timeout=CONNECT_SECONDS, context=context)
    try:
        connection.request("GET", f"/{path}")
        return connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


@dataclass
class Supervisor:
    """The parent of *components*; also reaps every orphan, as the first process of a PID namespace has to."""

    components: Sequence[Component]
    logs: Path
    report: Path
    states: dict[str, State] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    stopping: bool = False
    _reported: str = ""

    def run(self) -> None:
        """Return when SIGTERM or SIGINT has come and the components have ended or their grace is over."""
        self.states = {component.name: State() for component in self.components}
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self.stopping:
            self._reap()
            for component in self.components:
                self._start_if_due(component)
            self._tell()
            time.sleep(TICK_SECONDS)
        self._end()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _start_if_due(self, component: Component) -> None:
        state = self.states[component.name]
        if state.pid is not None or time.monotonic() < state.not_before:
            return
        state.waits_for = next((need for need in component.needs if not answers(need)), None)
        if state.waits_for is None:
            with _open_log(self.logs / f"{component.name}.log") as log:
                process = subprocess.Popen(component.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            state.pid, state.started = process.pid, time.monotonic()
            process.returncode = 0  # `_reap` waits for it, together with the orphans; Popen must not

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for component in self.components:
                if self.states[component.name].pid == pid:
                    self._ended(component, os.waitstatus_to_exitcode(status))

    def _ended(self, component: Component, code: int) -> None:
        state, now = self.states[component.name], time.monotonic()
        steady = now - state.started >= STEADY_SECONDS
        failures = 1 if steady else self.failures.get(component.name, 0) + 1
        self.failures[component.name] = failures
        state.pid, state.last_exit, state.restarts = None, code, state.restarts + 1
        state.not_before = now + backoff_seconds(failures)
        if not self.stopping:
            print(f"{time.strftime('%FT%TZ', time.gmtime())} {component.name} ended with {code}", flush=True)

    def _tell(self) -> None:
        text = json.dumps({name: asdict(state) for name, state in self.states.items()}, indent=2)
        if text != self._reported:
            new = self.report.with_name(f".{self.report.name}.new")
            new.write_text(text)
            new.rename(self.report)
            self._reported = text

    def _end(self) -> None:
        for component in reversed(self.components):
            pid = self.states[component.name].pid
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(state.pid is not None for state in self.states.values()):
            self._reap()
            time.sleep(TICK_SECONDS)


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
        path.rename(path.with_name(f"{path.name}.1"))
    return path.open("ab")
