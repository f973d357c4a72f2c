"""What both sides of the data path share: where a head ends, which headers travel, status lines, live connections."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from http import HTTPStatus

Header = tuple[bytes, bytes]
"""A header field, its name in lower case."""

_BOUNDARY = b"\r\n\r\n"

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
"""Of one connection only (RFC 9110, 7.6.1)."""

NOT_UPSTREAM = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    # What says who the client is stays here; the engine gets a key of its own.
    b"authorization",
    b"cookie",
    b"x-api-key",
    b"api-key",
    # Who the client is and what it asked for, as something before it may say: the engine believes none of it.
    b"forwarded",
    b"x-real-ip",
    b"x-client-ip",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-http-method-override",
    # vLLM's own routing headers would choose an engine process.
    b"x-data-parallel-rank",
    b"x-data-parallel-host-port",
    b"x-prefiller-host-port",
    b"x-encoder-hosts-ports",
}
NOT_DOWNSTREAM = HOP_BY_HOP | {
    # An engine, or a server outside, has nothing to say of the router's own name in its clients' browsers,
    b"set-cookie",
    b"alt-svc",
    b"strict-transport-security",
    # nor of whose account the router uses there.
    b"openai-organization",
    b"openai-project",
}
OUTSIDE = frozenset(
    (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"content-type",
        b"idempotency-key",
        b"openai-beta",
        b"user-agent",
    )
)
"""Of a client's headers, those that a server outside of the cluster gets: what others say is for those inside."""
_OURS = (b"x-largeforge-",)
ROUTING = (*_OURS, b"x-forwarded-", b"x-vsr-", b"x-vllm-", b"x-gateway-", b"x-envoy-", b"x-semantic-router-")
"""How the names of internal headers begin: ours, those of proxies, and those of other routers before an engine."""
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"close"))

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))
"""A node that vanished without a word is noticed after 35 s, without a timer for each chunk."""

STATUS_LINES = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in set(HTTPStatus) else ''}\r\n".encode()
    for status in range(100, 600)
}


def head_end(tail: bytes, data: bytes, at: int) -> int:
    """The index in *data*, from *at*, after the empty line that ends a head, or -1; *tail* is what came before."""
    if tail:
        found = (tail + data[at : at + 3]).find(_BOUNDARY)
        if found >= 0:
            return at + found + 4 - len(tail)
    found = data.find(_BOUNDARY, at)
    return found + 4 if found >= 0 else -1


def request_lines(headers: Iterable[Header]) -> bytes:
    """Those of a client's header lines that an engine gets."""
    return b"".join(_lines(headers, NOT_UPSTREAM, ROUTING))


def outside_lines(headers: Iterable[Header]) -> bytes:
    """Those of a client's header lines that a server outside of the cluster gets."""
    return b"".join([b"%b: %b\r\n" % header for header in headers if header[0] in OUTSIDE])


def response_lines(headers: Iterable[Header], *, chunked: bool) -> bytes:
    """Those of an engine's header lines that the client gets; the framing is the engine's own where it is *chunked*."""
    lines = _lines(headers, NOT_DOWNSTREAM, _OURS)
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"".join(lines)


def _lines(headers: Iterable[Header], dropped: frozenset[bytes], prefixes: tuple[bytes, ...]) -> list[bytes]:
    """The lines but for those *dropped*, those whose names begin so, and those that `Connection` calls its own."""
    for name, value in headers:
        if name == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            dropped = dropped.union(token.strip().lower() for token in value.split(b","))
    lines: list[bytes] = []
    for name, value in headers:
        if name not in dropped and not name.startswith(prefixes):
            lines += (name, b": ", value, b"\r\n")
    return lines


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel find out when the other side is gone."""
    found = transport.get_extra_info("socket")
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        found.setsockopt(socket.IPPROTO_TCP, option, value)


def reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Let the other side see a reset, not an orderly end, when this is closed."""
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
