"""What must hold for any bytes: the tests and `make fuzz` try to find bytes for which it does not."""

from __future__ import annotations

import json
import re

from largeforge.router.http1 import Header, request_lines, response_lines
from largeforge.router.openai import ApiError
from largeforge.router.reader import RequestReader
from largeforge.router.scan import Call, scan
from largeforge.router.settings import Settings

SETTINGS = Settings(max_body_bytes=65536, max_head_bytes=4096, max_headers=50)
NEVER_UPSTREAM = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade host"
    b" content-length expect authorization cookie x-api-key api-key forwarded x-data-parallel-rank".split()
)
_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+: [\t\x20-\x7e\x80-\xff]*\r\n")


def body(data: bytes) -> None:
    """What the scan takes is JSON with one model, and replacing the model changes nothing else."""
    found = _scanned(data)
    if isinstance(found, ApiError):
        assert found.status == 400, found.status
        assert json.loads(found.body())
        return
    call = found
    before = json.loads(data)
    names = [name for name, _ in json.loads(data, object_pairs_hook=list)]
    assert names.count("model") == 1, names
    assert names.count("stream") <= 1, names
    assert (call.model, call.stream) == (before["model"], before.get("stream") is True)
    value = b'"another \\u00e9"'
    sent = b"".join(call.with_model(value))
    assert len(sent) == call.length_with_model(value)
    assert sent == data[: call.start] + value + data[call.end :]
    assert json.loads(sent) == before | {"model": "another \u00e9"}
    assert all(isinstance(text, str) for text in call.user_texts(4))


def _scanned(data: bytes) -> Call | ApiError:
    try:
        return scan(data)
    except ApiError as error:
        return error


class Read:
    """What a reader makes of some bytes: its requests, and whether it refused."""

    def __init__(self, data: bytes, step: int) -> None:
        self.requests: list[tuple[bytes, bytes, tuple[Header, ...], bytes, bool]] = []
        self.refused: int | None = None
        reader = RequestReader(SETTINGS, lambda _: None)
        try:
            for begin in range(0, len(data), step):
                piece = data[begin : begin + step]
                at = 0
                while at < len(piece):
                    at = reader.feed(piece, at)
                    if not reader.complete:
                        continue
                    headers = tuple(reader.headers)
                    self.requests.append((reader.method, reader.path, headers, reader.take_body(), reader.surplus))
                    if reader.surplus or not reader.keep_alive:
                        return
                    reader.reset()
        except ApiError as error:
            self.refused = error.status


def head(data: bytes) -> None:
    """The requests in some bytes do not depend on how these were cut, and no line is made from another's value."""
    whole, bytewise = Read(data, len(data) or 1), Read(data, 1)
    # What follows a chunked body in one piece is dropped with the connection, so there the longer way sees more.
    known = len(whole.requests)
    surplus = known > 0 and whole.requests[-1][-1]
    assert [r[:-1] for r in whole.requests] == [r[:-1] for r in bytewise.requests[:known]]
    assert surplus or (known, bool(whole.refused)) == (len(bytewise.requests), bool(bytewise.refused))
    assert whole.refused in (None, 400, 413, 417, 431, 505)
    for _, path, headers, _, _ in whole.requests:
        assert path.startswith(b"/")
        headers_out(headers)


def headers_out(headers: tuple[Header, ...]) -> None:
    """The lines that an engine or a client gets are whole lines, and none that is the connection's or the router's."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    for lines, never in ((request_lines(headers), NEVER_UPSTREAM), (response_lines(headers, chunked=False), {b"te"})):
        at = 0
        while at < len(lines):
            found = _LINE.match(lines, at)
            assert found, lines[at:]
            name = found.group().partition(b":")[0]
            assert name not in never | (named - {b"close", b"keep-alive"}), name
            assert not name.startswith(b"x-largeforge-"), name
            at = found.end()
