"""What the commands meet: a cluster in a dict that tells its changes, and a router on loopback."""

from __future__ import annotations

import json
import threading
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typer.testing import CliRunner

from largeforge.api.names import API_VERSION
from largeforge.cli.app import app
from largeforge.cli.session import Session
from largeforge.kube.cluster import ClusterError, WatchEvent
from tests.unit.fakes import FakeCluster
from tests.unit.training import manifest as job_manifest

NAMESPACE = "team"
KEY = "a-key-of-sixteen-characters"


class TellingCluster(FakeCluster):
    """A `FakeCluster` with logs, and a watch that shows *scenes*: each a list of changes, one after the other."""

    def __init__(self, *objects, logs=None, scenes=(), refused=None):
        super().__init__(*objects)
        self.logs = logs or {}
        self.scenes = scenes
        self.refused = refused

    async def list(self, resource, namespace, *, labels=None):
        if self.refused is not None:
            raise self.refused
        return await super().list(resource, namespace, labels=labels)

    async def watch(self, resource, namespace, *, labels=None):
        for found in await super().list(resource, namespace, labels=labels):
            yield WatchEvent("ADDED", found)
        yield WatchEvent("SYNCED", {})
        for event in self.scenes:
            yield event
        raise AssertionError("nobody waits for more than the test has")

    async def log(self, namespace, pod, container, *, follow=False, tail=None):  # noqa: ARG002 - nothing is added
        lines = self.logs[pod, container]
        if isinstance(lines, ClusterError):
            raise lines
        for line in lines if tail is None else lines[-tail or len(lines) :]:
            yield line


def call(*arguments, cluster=None, environ=None, forward=None, stdin=None):
    """What the command prints and with which code it ends."""

    @asynccontextmanager
    async def connect(context):
        if isinstance(cluster, ClusterError):
            raise cluster
        assert context is None
        yield cluster

    made = Session(connect, lambda _: NAMESPACE, environ or {}, *([forward] if forward else []))
    return CliRunner().invoke(app, list(arguments), obj=made, input=stdin)


def job(name="sql", *, kind="FineTuneJob", status=None, **spec):
    made = job_manifest(name=name, **spec) | {"kind": kind}
    made["metadata"] = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{kind}-{name}"}
    if kind == "QuantizeJob":
        made["spec"] = {
            "source": {"uri": "pvc://models/base"},
            "methods": ["AWQ"],
            "calibration": {"datasets": [{"uri": "pvc://data/rows.jsonl"}]},
            "output": {"uri": "pvc://models/out"},
        } | spec
    return made | ({"status": status} if status else {})


def service(name="qwen", *, status=None, **spec):
    return _made("InferenceService", name, {"model": {"uri": "pvc://models/base"}} | spec, status)


def expert(name="sql", *, status=None):
    spec = {
        "type": "Adapter",
        "sourceRef": {"kind": "FineTuneJob", "name": "sql"},
        "inferenceServiceRef": {"name": "qwen"},
    }
    return _made("Expert", name, spec, status)


def _made(kind, name, spec, status):
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{kind}-{name}"}
    made = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    return made | ({"status": status} if status else {})


def said(kind, reason, message="", *, status="True"):
    return {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 1}


def pod(name, *, container="trainer", labels=None):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels or {}},
        "spec": {"containers": [{"name": container}]},
    }


class Answering(BaseHTTPRequestHandler):
    """Says what the test put on the server, and keeps what it was asked."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        status, headers, content = self.server.answers(self.path, body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that does not trust the certificate leaves: nothing is said of it."""


@contextmanager
def router(answers, *, tls=None):
    """A server whose `url` leads to *answers*, a function of path and body to status, headers and content."""
    server = QuietServer(("127.0.0.1", 0), Answering)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.answers, server.asked = answers, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stream(*texts, whole=True):
    """An answer in pieces, as the router hands it on."""
    events = [json.dumps({"choices": [{"delta": {"content": text}}]}) for text in texts] + ["[DONE]"] * whole
    headers = {"x-largeforge-expert": "sql", "x-largeforge-reason": "keyword", "x-largeforge-score": "0.90"}
    return 200, headers, "".join(f"data: {event}\n\n" for event in events).encode()


def refusal(status, message):
    return status, {}, json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode()
