from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from largeforge.api.keys import engine_key
from largeforge.router import snapshot
from largeforge.router.server import Options, serving
from largeforge.router.settings import Settings, SettingsError, StartError
from largeforge.router.snapshot import Objects
from largeforge.router.source import engine_keys, load_namespace_key
from tests.unit.router.lab import CHAT, CHAT_STREAM, KEY, LAST, STREAM, Lab, Raw, Received, chunk, event, get, post
from tests.unit.router.test_table import endpoint, expert, service, slice_


def test_settings_come_from_the_environment_and_others_variables_are_ignored():
    found = Settings.from_environment(
        {
            "LARGEFORGE_NAMESPACE": "team",
            "LARGEFORGE_ALLOW_UNAUTHENTICATED": "true",
            "LARGEFORGE_ROUTER_PORT": "tcp://1",
        }
    )
    assert (found.namespace, found.allow_unauthenticated, found.max_body_bytes) == ("team", True, 4 * 1024 * 1024)


def test_a_wrong_setting_is_named():
    with pytest.raises(SettingsError, match=r"LARGEFORGE_GRACE_SECONDS: .* \(got 'soon'\)"):
        Settings.from_environment({"LARGEFORGE_GRACE_SECONDS": "soon"})


def test_engine_keys_come_from_the_namespaces_key(tmp_path: Path):
    path = tmp_path / "key"
    path.write_bytes(b"k" * 32)
    assert engine_keys(load_namespace_key(path))(service()) == engine_key(b"k" * 32, "uid-smol")
    path.write_bytes(b"short")
    with pytest.raises(StartError, match="must have 32 bytes"):
        load_namespace_key(path)
    with pytest.raises(StartError, match="cannot be read"):
        load_namespace_key(tmp_path / "none")


async def held(received: Received):
    await received.send(STREAM + chunk(event("a")))
    await received.gone()


async def test_the_second_port_tells_health_and_metrics(lab: Lab):
    router = await lab.router(await lab.engine())
    await router.ask(post(CHAT))
    state = {"why": "no route table yet"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = Options("127.0.0.1", 0, port)
    async with serving(router.dispatcher, options, ready=lambda: state["why"]), aiohttp.ClientSession() as http:

        async def fetch(path: str) -> None:
            async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()

        assert await fetch("/healthz") == (200, "ok\n")
        assert await fetch("/readyz") == (503, "no route table yet\n")
        state["why"] = None
        assert await fetch("/readyz") == (200, "ok\n")
        status, text = await fetch("/metrics")
    assert status == 200
    assert 'largeforge_router_requests_total{code="200",expert="general",reason="fallback"} 1.0' in text
    assert "largeforge_router_in_flight 0.0" in text
    assert "largeforge_router_table_age_seconds" in text


async def test_before_the_first_table_a_client_is_asked_to_come_back(lab: Lab):
    router = await lab.router()
    for request in (post(CHAT), get(b"/v1/models"), get(b"/v1/models/auto"), post(CHAT, path=b"/v1/route")):
        found = await router.ask(request)
        assert (found.status, found.headers["retry-after"]) == (503, "5")


async def test_open_requests_end_before_the_router_does(lab: Lab):
    async def slow(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(release.wait(), 5)
        await received.send(LAST)

    release = asyncio.Event()
    router = await lab.router(await lab.engine(slow))
    idle, busy, reading = [await router.connect() for _ in range(3)]
    await busy.send(post(CHAT_STREAM))
    await busy.until(event("a"))
    await reading.send(post(CHAT)[:-5])
    await idle.send(get(b"/v1/models"))
    await idle.answer()
    drained = asyncio.create_task(router.dispatcher.drain(5))
    assert await idle.rest() == b""
    assert not drained.done()
    release.set()
    assert (await busy.rest()).endswith(LAST)
    await reading.send(post(CHAT)[-5:])
    assert b"connection: close" in await reading.until(b"\r\n\r\n")
    await drained


async def test_requests_that_outlast_the_grace_period_are_cut(lab: Lab):
    engine = await lab.engine(held)
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(post(CHAT_STREAM))
    await raw.until(event("a"))
    await router.dispatcher.drain(0.05)
    assert not (await raw.rest()).endswith(LAST)
    await router.idle()


async def test_nothing_is_logged_of_a_request(lab: Lab, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    router = await lab.router(await lab.engine())
    await router.ask(post(CHAT.replace(b"hi", b"my secret prompt")))
    await router.ask(post(CHAT, key="wrong-key-0123456789"))
    ours = [record for record in caplog.records if record.name.startswith("largeforge")]
    assert ours == []


# The program

TABLE = """
kind: Expert
metadata: {name: general}
spec: {type: Model, artifact: {uri: "pvc://m/x"}, inferenceServiceRef: {name: smol}, routing: {fallback: true}}
---
endpoints: [{service: smol, url: "http://127.0.0.1:%d"}]
"""


def free_ports():
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


class Program:
    """The router as a process; its log is read in a thread."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.log = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "largeforge.router", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def until(self, mark: str) -> None:
        async with asyncio.timeout(20):
            while mark not in self.log:
                self.log += await asyncio.to_thread(self._process.stderr.readline)

    def terminate(self) -> None:
        self._process.terminate()

    async def end(self) -> int:
        try:
            self.log += (await asyncio.to_thread(self._process.communicate, timeout=20))[1]
        finally:
            self._process.kill()
        return self._process.returncode


async def test_the_program_serves_a_table_and_ends_in_order(lab: Lab, tmp_path: Path):
    async def slow(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(go_on.wait(), 20)
        await received.send(LAST)

    go_on = asyncio.Event()
    engine = await lab.engine()
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "team").write_text(KEY)
    (tmp_path / "table.yaml").write_text(TABLE % engine.port)
    port, health = free_ports()
    program = Program(
        *("--table", str(tmp_path / "table.yaml"), "--host", "127.0.0.1"),
        *("--port", str(port), "--health-port", str(health)),
        LARGEFORGE_CLIENTS_DIR=str(tmp_path / "clients"),
    )
    await program.until("started on port")
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    await raw.send(post(CHAT))
    assert (await raw.answer()).status == 200
    engine.script = slow
    await raw.send(post(CHAT_STREAM))
    await raw.until(event("a"))
    program.terminate()
    await program.until("stopping")
    go_on.set()
    assert (await raw.rest()).endswith(LAST)
    raw.close()
    assert await program.end() == 0
    assert "route table: general, smol; not ready: none" in program.log
    assert program.log.endswith("stopped\n")
    assert KEY not in program.log


@pytest.mark.parametrize(
    ("table", "environment", "message"),
    [
        ("kind: Pod", {"LARGEFORGE_ALLOW_UNAUTHENTICATED": "true"}, "kind 'Pod': write Expert"),
        (TABLE % 1, {}, "holds no usable key"),
        (TABLE % 1, {"LARGEFORGE_MAX_BODY_BYTES": "much"}, "LARGEFORGE_MAX_BODY_BYTES"),
    ],
)
async def test_a_wrong_configuration_is_one_line_and_exit_78(
    tmp_path: Path, table: Any, environment: Any, message: str
):
    (tmp_path / "table.yaml").write_text(table)
    missing = str(tmp_path / "none")
    program = Program("--table", str(tmp_path / "table.yaml"), LARGEFORGE_CLIENTS_DIR=missing, **environment)
    assert await program.end() == 78
    assert message in program.log
    assert len(program.log.splitlines()) == 1


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: x, user: {token: abc}}]
"""


async def test_without_an_api_server_the_program_waits_and_says_that_it_is_not_ready(tmp_path: Path):
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "key").write_bytes(b"k" * 32)
    port, health = free_ports()
    program = Program(
        *("--host", "127.0.0.1", "--port", str(port), "--health-port", str(health)),
        KUBECONFIG=str(tmp_path / "kubeconfig"),
        LARGEFORGE_ALLOW_UNAUTHENTICATED="true",
        LARGEFORGE_CLIENTS_DIR=str(tmp_path / "none"),
        LARGEFORGE_NAMESPACE_KEY_FILE=str(tmp_path / "key"),
    )
    await program.until("started on port")
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{health}/readyz") as response:
        assert (response.status, await response.text()) == (503, "no route table yet\n")
    program.terminate()
    assert await program.end() == 0
    assert "Traceback" not in program.log


async def test_a_program_that_starts_again_without_an_api_server_serves_what_it_knew(lab: Lab, tmp_path: Path):
    engine = await lab.engine()
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "key").write_bytes(b"k" * 32)
    slices = [slice_(endpoint("p1", "127.0.0.1"), port=engine.port)]
    objects = Objects([expert("general", routing={"fallback": True})], [service()], slices)
    snapshot.write(tmp_path / "snapshot.json", "default", objects)
    port, health = free_ports()
    program = Program(
        *("--host", "127.0.0.1", "--port", str(port), "--health-port", str(health)),
        KUBECONFIG=str(tmp_path / "kubeconfig"),
        LARGEFORGE_ALLOW_UNAUTHENTICATED="true",
        LARGEFORGE_CLIENTS_DIR=str(tmp_path / "none"),
        LARGEFORGE_NAMESPACE_KEY_FILE=str(tmp_path / "key"),
        LARGEFORGE_SNAPSHOT_FILE=str(tmp_path / "snapshot.json"),
        LARGEFORGE_LOAD_SECONDS="0.05",
    )
    await program.until("the API server does not answer")
    await program.until("route table: general, smol")
    asked = await engine.request()
    assert asked.head.startswith(b"GET /metrics ")
    assert "authorization" not in asked.headers
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    await raw.send(post(CHAT))
    assert (await raw.answer()).headers["x-largeforge-expert"] == "general"
    raw.close()
    (forwarded,) = [received for received in engine.received if received.head.startswith(b"POST ")]
    assert forwarded.headers["authorization"] == f"Bearer {engine_key(b'k' * 32, 'uid-smol')}"
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{health}/metrics") as response:
        assert "largeforge_router_table_from_snapshot 1.0" in await response.text()
    program.terminate()
    assert await program.end() == 0
