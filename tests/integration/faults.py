"""What stands between an operator and the API server in tests: it counts writes, and does to them what networks do."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from largeforge.kube.watch import aborted
from tests.integration.operators import free_port

LEASES = "/leases"
LATE_SECONDS = 0.5
PERIOD = 3
HOP = frozenset(
    ("host", "connection", "transfer-encoding", "content-length", "keep-alive", "accept-encoding", "content-encoding")
)


@dataclass(frozen=True)
class Asked:
    """A write: the *number*th of all, the *time*th that this method and path see."""

    number: int
    time: int
    method: str
    path: str
    body: bytes

    @property
    def status(self) -> bool:
        return self.path.endswith("/status")

    @property
    def event(self) -> bool:
        return self.path.endswith("/events")

    def __str__(self) -> str:
        return f"{self.number}: {self.method} {self.path}"


class Faults:
    """Nothing happens. Subclasses say what does."""

    async def before(self, asked: Asked) -> web.Response | None:
        """What the operator is answered instead of the server's word; None: the server is asked."""

    async def after(self, asked: Asked) -> bool:  # noqa: ARG002 - subclasses look at it
        """Whether the connection is reset although the server has done it."""
        return False

    async def watched(self, path: str, line: bytes) -> list[bytes]:  # noqa: ARG002 - as above
        """What is sent in the place of a line of the watch of *path*."""
        return [line]


@dataclass
class Proxy:
    """Counts what passes; `faults` may be changed meanwhile."""

    server: str
    session: aiohttp.ClientSession
    faults: Faults = field(default_factory=Faults)
    writes: list[Asked] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    """How often the server has made each object, by path and name."""
    _times: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.query.get("watch") == "true":
                return await self._watch(request)
            if request.method == "GET" or LEASES in request.path:
                return await self._forward(request, await request.read())
            return await self._write(request, await request.read())
        except (aiohttp.ClientError, ConnectionError):
            return _reset(request)

    async def _write(self, request: web.Request, body: bytes) -> web.StreamResponse:
        key = request.method, request.path
        self._times[key] += 1
        asked = Asked(len(self.writes), self._times[key], *key, body)
        self.writes.append(asked)
        instead = await self.faults.before(asked)
        if instead is not None:
            return instead
        answer = await self._forward(request, body)
        if answer.status == 201:
            name = json.loads(body)["metadata"]["name"]
            self.made[f"{request.path.removesuffix(f'/{name}')}/{name}"] += 1
        return _reset(request) if await self.faults.after(asked) else answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        async with self._ask(request, body) as answer:
            content = await answer.read()
        return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=content)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self._ask(request, b"") as answer:
            passed = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
            await passed.prepare(request)
            async for line in answer.content:
                for each in await self.faults.watched(request.path, line):
                    await passed.write(each)
            await passed.write_eof()
            return passed

    @asynccontextmanager
    async def _ask(self, request: web.Request, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            self.session.request(
                request.method,
                f"{self.server}{request.raw_path}",
                headers=_end_to_end(request.headers),
                data=body or None,
            ) as answer,
            aborted(answer),
        ):
            yield answer


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP}


@asynccontextmanager
async def proxy(kubeconfig: Path, written: Path) -> AsyncIterator[Proxy]:
    """A proxy to the server of *kubeconfig*, as its user; *written* is the kubeconfig that leads through it."""
    config = _read(kubeconfig)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    # A watch may have a long line, and aiohttp refuses one above its buffer.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=_identity(cluster, user)),
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=1 << 22,
    ) as session:
        found = Proxy(cluster["server"], session)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", found.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        port = free_port()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
            config["users"][0]["user"] = {}
            _write(written, config)
            yield found
        finally:
            await runner.cleanup()


def _read(kubeconfig: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    return found


def _write(kubeconfig: Path, config: dict[str, Any]) -> None:
    kubeconfig.write_text(yaml.safe_dump(config))
    kubeconfig.chmod(0o600)


def _identity(cluster: dict[str, str], user: dict[str, str]) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, holder in (("certificate-authority", cluster), ("client-certificate", user), ("client-key", user)):
            paths[name] = Path(holder[name]) if name in holder else Path(folder) / name
            if name not in holder:
                paths[name].write_bytes(base64.b64decode(holder[f"{name}-data"]))
        context = ssl.create_default_context(cafile=str(paths["certificate-authority"]))
        context.load_cert_chain(str(paths["client-certificate"]), str(paths["client-key"]))
    return context


def refusal(status: int, reason: str, **headers: str) -> web.Response:
    """An answer as the API server gives it."""
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
    return web.json_response(said | {"message": f"{reason} (by the test)"}, status=status, headers=headers)


class Kill(Faults):
    """SIGKILL at one write: before the server has it, or after it has done it and before its answer is heard."""

    def __init__(self, at: int, *, done: bool, kill: Callable[[], None]) -> None:
        self._at, self._done, self._kill = at, done, kill

    async def before(self, asked: Asked) -> web.Response | None:
        if asked.number == self._at and not self._done:
            self._kill()
            return web.Response(status=502)
        return None

    async def after(self, asked: Asked) -> bool:
        if asked.number == self._at and self._done:
            self._kill()
        return False


class Refused(Faults):
    """Every third write to a path, from the first on, is answered by *answer*.

    Not every other one: a pass that writes a status in two parts would meet it at the same part for ever.
    """

    def __init__(self, answer: Callable[[], web.Response], *, of: Callable[[Asked], bool]) -> None:
        self._answer, self._of = answer, of

    async def before(self, asked: Asked) -> web.Response | None:
        return self._answer() if self._of(asked) and asked.time % PERIOD == 1 else None


class Watched(Faults):
    """The lines of each watch: *change* makes of the *n*th what is sent."""

    def __init__(self, change: Callable[[int, bytes], list[bytes]]) -> None:
        self._change = change
        self._lines: Counter[str] = Counter()

    async def watched(self, path: str, line: bytes) -> list[bytes]:
        self._lines[path] += 1
        return self._change(self._lines[path], line)


class Late(Faults):
    """Every line of a watch waits, and all that come after it."""

    async def watched(self, path: str, line: bytes) -> list[bytes]:  # noqa: ARG002 - late, whatever it is
        await asyncio.sleep(LATE_SECONDS)
        return [line]


class Swapped(Faults):
    """Of two lines of a watch the second comes first, and what is the last of all does not come."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    async def watched(self, path: str, line: bytes) -> list[bytes]:
        held = self._held.pop(path, None)
        if held is None:
            self._held[path] = line
            return []
        return [line, held]
