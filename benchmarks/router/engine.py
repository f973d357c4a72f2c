"""An engine that answers at once and knows nothing: it costs as little as it can, and says when a connection ends.

A request says how it wants to be answered: `max_tokens` pieces, one every `seed` milliseconds.
"""

from __future__ import annotations

import asyncio
import re
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_PIECES = re.compile(rb'"max_(?:completion_)?tokens": *(\d+)')
_EVERY = re.compile(rb'"seed": *(\d+)')
_MARK = re.compile(rb"mark-(\d+)-")
NEVER_MS = 99_999
"""A `seed` that means: do not answer."""

_TEXT = "The quick brown fox jumps over the lazy dog, and then it does so once more. "
_COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":200,'
    b'"total_tokens":264,"completion_tokens":64,"prompt_tokens_details":null}}' % (_TEXT.encode() * 4)
)
_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}\n\n'
)
_USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":200,"total_tokens":264,"completion_tokens":64}}\n\n'
)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    return head + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(body) + body


ANSWER = _whole(_COMPLETION)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_PIECE = _framed(_CHUNK)
STREAM_END = _framed(_USAGE) + _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_OTHER = {
    b"/v1/models": b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"x","root":"m"}]}',
    b"/health": b"{}",
}
_ABOUT = b'{"model_path":"m","model_id":"m","served_model_name":"m","is_generation":true,"version":"0.1"}'


class Engine(asyncio.Protocol):
    """One connection."""

    closed: dict[int, float] = {}
    """When the connection ended that carried the request with a mark."""
    seen: set[int] = set()
    """Marks of requests that have arrived, whole or in part."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._mark: int | None = None
        self._left = 0
        self._every = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Say when."""
        if self._timer is not None:
            self._timer.cancel()
        if self._mark is not None:
            self.closed[self._mark] = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        """Answer each request as soon as it is whole."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._data, 0, end)
        if length is not None:
            whole = len(self._data) >= end + 4 + int(length[1])
        elif b"chunked" in self._data[:end].lower():
            whole = self._data.endswith(b"0\r\n\r\n")
        else:
            whole = True
        if not whole:
            self._note()
            return
        request, self._data = self._data, b""
        self._answer(request, end)

    def _note(self) -> None:
        found = _MARK.search(self._data)
        if found is not None:
            self._mark = int(found[1])
            self.seen.add(self._mark)

    def _answer(self, request: bytes, end: int) -> None:
        if not request.startswith(b"POST"):
            path = request.split(b" ", 2)[1]
            self._transport.write(_whole(_OTHER.get(path, _ABOUT)))
            return
        found = _MARK.search(request, end)
        self._mark = int(found[1]) if found is not None else None
        if self._mark is not None:
            self.seen.add(self._mark)
        every = _EVERY.search(request, end)
        milliseconds = int(every[1]) if every is not None else 0
        if milliseconds == NEVER_MS:
            return
        if not _STREAM.search(request, end):
            self._transport.write(ANSWER)
            return
        pieces = _PIECES.search(request, end)
        self._left = int(pieces[1]) if pieces is not None else 1
        self._every = milliseconds / 1000
        self._transport.write(STREAM_HEAD)
        self._piece()

    def _piece(self) -> None:
        if self._left == 0:
            self._transport.write(STREAM_END)
            return
        self._left -= 1
        self._transport.write(STREAM_PIECE)
        if self._every:
            self._timer = self._loop.call_later(self._every, self._piece)
        else:
            self._piece()
