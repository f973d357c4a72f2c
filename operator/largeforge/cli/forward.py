"""A port of a Service on this machine, by kubectl's own port-forward.

The API server's service proxy would need no program, but it takes the `Authorization` header for its own and removes
it, so a router would never see a client's key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

START_SECONDS = 20.0
POD_SECONDS = 10
"""How long kubectl waits for a pod that runs: it must come to its own words before our time is over."""
STOP_SECONDS = 5.0
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")

Forward = Callable[[str, str, int, str | None], AbstractAsyncContextManager[int]]
"""Namespace, Service, its port and the kubeconfig's context; gives the port on 127.0.0.1."""


class ForwardError(Exception):
    """kubectl did not forward; its own words."""


@asynccontextmanager
async def forwarded(namespace: str, service: str, port: int, context: str | None) -> AsyncIterator[int]:
    """The port on 127.0.0.1 that leads to *service* while this is open; a `ForwardError` where kubectl cannot."""
    chosen = ("--context", context) if context else ()
    limit = f"--pod-running-timeout={POD_SECONDS}s"
    command = ("kubectl", *chosen, "-n", namespace, "port-forward", "--address", "127.0.0.1", limit)
    try:
        process = await asyncio.create_subprocess_exec(
            *(*command, f"service/{service}", f":{port}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as exc:
        raise ForwardError("there is no kubectl on PATH") from exc
    try:
        yield await _port(process)
    finally:
        await _stop(process)


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None  # noqa: S101 - it was asked for above
    try:
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode(errors="replace")
            found = _FORWARDING.search(line)
            if found is not None:
                return int(found[1])
            said = await _last_words(process)
    except TimeoutError as exc:
        raise ForwardError(f"kubectl port-forward said nothing in {START_SECONDS:.0f} s") from exc
    raise ForwardError(said or line.strip() or "kubectl port-forward ended without a word")


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None  # noqa: S101 - as above
    lines = (await process.stderr.read()).decode(errors="replace").strip().splitlines()
    # Not left to `_stop`: a signal to a process that has just ended makes Popen reap it, and asyncio's own watcher then
    # finds no child and warns on standard error (seen with Python 3.11).
    await process.wait()
    said = lines[-1].removeprefix("error: ") if lines else ""
    return said.replace("timed out waiting for the condition", f"none of its pods ran within {POD_SECONDS} s")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
