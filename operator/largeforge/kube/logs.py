"""The log of a container, line by line."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator

import aiohttp

from largeforge.kube.cluster import PODS, ClusterError
from largeforge.kube.transport import CONNECT_SECONDS, Request, Transport, error, path


def log_request(namespace: str, pod: str, container: str, *, follow: bool, tail: int | None) -> Request:
    """What is asked for the log of *container*."""
    query = {"container": container, **({"follow": "true"} if follow else {})}
    query |= {} if tail is None else {"tailLines": str(tail)}
    return Request("GET", f"{path(PODS, namespace, pod)}/log", query, accept="*/*")


async def log_lines(transport: Transport, request: Request) -> AsyncIterator[str]:
    """The lines without their ends; a `ClusterError` where the server refuses or the connection breaks."""
    # A log that is followed may be silent for hours: only the connection has a limit.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    try:
        async with await transport.send(request, timeout) as response:
            if response.status >= 400:
                raise error(response.status, await response.read())
            # Not line by line: aiohttp refuses a line of more than its buffer, and a log may have one.
            async for piece in response.content.iter_any():
                *lines, rest = (rest + decoder.decode(piece)).split("\n")
                for line in lines:
                    yield line
    except (aiohttp.ClientError, OSError) as exc:
        raise ClusterError(f"{request}: {exc}") from exc
    if rest:
        yield rest
