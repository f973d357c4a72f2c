import json
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dev.cluster import host, layout, processes, readiness
from dev.cluster.gpus import gpu_patch
from dev.cluster.processes import NodeProcess
from dev.cluster.supervisor import answers, backoff_seconds

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
BEFORE = "2026-01-01T11:59:00Z"
AFTER = "2026-01-01T12:00:05Z"


def node(*, ready: str = "True", heartbeat: str = AFTER) -> dict[str, object]:
    return {"status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]}}


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (node(), True),
        (node(ready="False"), False),
        (node(heartbeat=BEFORE), False),  # what etcd still says of the time before the restart
        ({}, False),
    ],
)
def test_node_is_ready_when_its_kubelet_said_so_since_the_start(found: dict[str, object], *, ready: bool) -> None:
    assert readiness.node_is_ready(found, since=START) is ready


@pytest.mark.parametrize(
    ("statuses", "ready"),
    [
        ([{"ready": True, "state": {"running": {"startedAt": AFTER}}}], True),
        ([{"ready": True, "state": {"running": {"startedAt": BEFORE}}}], False),
        ([{"ready": False, "state": {"running": {"startedAt": AFTER}}}], False),
        ([{"ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}], False),
        ([], False),
    ],
)
def test_pod_is_ready_when_all_its_containers_run_since_the_start(statuses: list[object], *, ready: bool) -> None:
    assert readiness.pod_is_ready({"status": {"containerStatuses": statuses}}, since=START) is ready


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ({"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1}, True),
        ({"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1}, False),
        ({"observedGeneration": 2, "availableReplicas": 1}, False),
        ({}, False),
    ],
)
def test_deployment_has_settled(status: dict[str, int], *, settled: bool) -> None:
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": status}
    assert readiness.deployment_has_settled(deployment) is settled


def with_gpus(capacity: str | None, allocatable: str | None) -> dict[str, object]:
    values = {"capacity": capacity, "allocatable": allocatable}
    return {"status": {key: {"nvidia.com/gpu": value} if value else {} for key, value in values.items()}}


def test_missing_gpus_are_added() -> None:
    assert gpu_patch(with_gpus(None, None), wanted=8) == [
        {"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "8"},
        {"op": "add", "path": "/status/allocatable/nvidia.com~1gpu", "value": "8"},
    ]


def test_gpus_that_are_there_need_no_patch() -> None:
    assert gpu_patch(with_gpus("8", "8"), wanted=8) == []


def test_no_gpus_wanted_removes_them_and_leaves_the_kubelets_zero() -> None:
    assert gpu_patch(with_gpus("8", "0"), wanted=0) == [{"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"}]


def test_backoff_grows_to_its_limit() -> None:
    assert [backoff_seconds(failures) for failures in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_answers(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server, socket.create_server(("127.0.0.1", 0)) as tcp:
        server.bind(str(tmp_path / "socket"))
        assert not answers(f"unix:{tmp_path}/socket")  # there, but nobody listens
        server.listen()
        assert answers(f"unix:{tmp_path}/socket")
        assert answers(f"tcp:127.0.0.1:{tcp.getsockname()[1]}")
        port = tcp.getsockname()[1]
    assert not answers(f"tcp:127.0.0.1:{port}")
    assert not answers(f"https://127.0.0.1:{port}/readyz")
    assert answers(f"file:{tmp_path}")
    assert not answers(f"file:{tmp_path}/other")


SUPERVISED = """
import sys
from pathlib import Path
from dev.cluster.components import Component
from dev.cluster.supervisor import Supervisor

folder = Path(sys.argv[1])
steady = Component(name="steady", command=["sleep", "100"])
crashing = Component(name="crashing", command=["sh", "-c", "echo again; exit 3"])
waiting = Component(name="waiting", command=["sleep", "100"], needs=(f"file:{folder}/go",))
Supervisor([steady, crashing, waiting], logs=folder, report=folder / "report").run()
"""


def wait_for(condition: object, *, seconds: float = 20) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.02)


def test_supervisor_starts_restarts_and_stops(tmp_path: Path) -> None:
    report = tmp_path / "report"

    def state(name: str) -> dict[str, object]:
        return json.loads(report.read_text())[name] if report.exists() else {}

    process = subprocess.Popen([sys.executable, "-c", SUPERVISED, str(tmp_path)])
    try:
        wait_for(lambda: state("crashing").get("restarts", 0) == 2)
        assert state("crashing")["last_exit"] == 3
        assert state("steady")["restarts"] == 0
        assert state("waiting")["waits_for"] == f"file:{tmp_path}/go"
        (tmp_path / "go").touch()
        wait_for(lambda: state("waiting")["pid"])
        children = [state(name)["pid"] for name in ("steady", "waiting")]
        process.terminate()
        assert process.wait(10) == 0
        assert [Path(f"/proc/{pid}").exists() for pid in children] == [False, False]
        assert (tmp_path / "crashing.log").read_text().startswith("again\nagain\n")
    finally:
        process.kill()
        process.wait()


def test_process_is_known_by_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "NODE_FILE", tmp_path / "node.json")
    assert NodeProcess.read() is None
    current = NodeProcess.current(root=tmp_path, fingerprint="f")
    current.write()
    assert NodeProcess.read() == current
    assert abs(current.started_at() - datetime.now(UTC)) < timedelta(hours=24)
    reused = NodeProcess(current.pid, current.started - 1, current.boot, str(tmp_path), "f")
    reused.write()
    assert NodeProcess.read() is None
    rebooted = NodeProcess(current.pid, current.started, "another boot", str(tmp_path), "f")
    assert not rebooted.alive()


def test_node_file_that_is_torn_is_no_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "NODE_FILE", tmp_path / "node.json")
    (tmp_path / "node.json").write_text('{"pid": 1')
    assert NodeProcess.read() is None


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether the process does; others may be ignored besides, for example SIGHUP under nohup."""
    mask = int(Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0], 16)
    return bool(mask & 1 << (number - 1))


def test_stop_kills_what_does_not_listen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.5)
    process = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"])
    reaper = threading.Thread(target=process.wait)  # as the machine's first process does for the node
    reaper.start()
    try:
        started = processes.start_ticks(process.pid)
        assert started is not None
        wait_for(lambda: ignores(process.pid, signal.SIGTERM))
        NodeProcess(process.pid, started, processes.boot_id(), str(tmp_path), "f").stop()
    finally:
        process.kill()
        reaper.join()
    assert process.returncode == -signal.SIGKILL


def test_kernel_settings_are_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "SETTINGS", tmp_path / "settings.json")
    monkeypatch.setattr(host, "KERNEL", tmp_path)
    monkeypatch.setattr(host, "KUBELET_SETTINGS", ("panic",))
    panic = tmp_path / "panic"
    panic.write_text("1\n")
    host.remember_settings()
    panic.write_text("10")
    host.remember_settings()  # a second start must not take the kubelet's value for the machine's
    host.restore_settings()
    assert panic.read_text() == "1"
    host.restore_settings()


def test_names_fit_the_kernels_limits() -> None:
    assert max(len(layout.HOST_LINK), len(layout.NODE_LINK)) < 16
