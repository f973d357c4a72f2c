"""The oracles over bytes that are nearly right; `make fuzz` looks further."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import oracles

LEAF = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=9,
)
NAME = st.sampled_from(["model", "stream", "messages", "prompt", "mod\\u0065l", "Model", "x", ""])
MEMBER = st.tuples(NAME, st.sampled_from(["auto", "model", '"', "stream", True, None]) | JSON)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """An object whose members are double, escaped or misplaced now and then, and that is broken now and then."""
    members = draw(st.lists(MEMBER, max_size=6))
    space = st.sampled_from(["", " ", "\n", "\t "])
    parts = [
        f'{draw(space)}"{name}"{draw(space)}:{draw(space)}{json.dumps(value)}{draw(space)}' for name, value in members
    ]
    data = ("{" + ",".join(parts) + "}" + draw(space)).encode()
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    return data


@given(bodies() | st.binary(max_size=40))
@example(b'{"model":"a","mod\\u0065l":"b"}')
@example(b'{"model":"a","x":"\\"model\\":\\"b\\""}')
def test_a_body_is_taken_as_it_is_or_refused(data: bytes) -> None:
    oracles.body(data)


LINE = st.sampled_from(
    [
        b"Host: r",
        b"Content-Length: 5",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Connection: close, X-A",
        b"Connection: upgrade",
        b"Upgrade: h2c",
        b"X-A: b",
        b"X-LargeForge-Expert: x",
        b"Expect: 100-continue",
        b" folded",
        b"X:\ty\t",
        b"X\xff: y",
        b"Authorization: Bearer k",
    ]
)
START = st.sampled_from(
    [b"POST /v1/x HTTP/1.1", b"GET / HTTP/1.1", b"GET /a HTTP/1.0", b"CONNECT a:1 HTTP/1.1", b"PRI * HTTP/2.0"]
)
END = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\r\n\r\n", b"\x00\r\n"])
BODY = st.sampled_from(
    [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"\r\n", b"0\r\n\r\n"]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One to three requests that are nearly right."""
    found = b""
    for _ in range(draw(st.integers(1, 3))):
        lines = [draw(START), b"Host: r", *draw(st.lists(LINE, max_size=5, unique=True))]
        found += b"".join(line + draw(END) for line in lines) + draw(END) + draw(BODY)
    return found


UPGRADE = b"POST / HTTP/1.1\r\nHost: r\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello"


@given(requests() | st.binary(max_size=60))
@example(UPGRADE * 2)
@example(b"\r\n\r\n" + UPGRADE + b"\r\n\r\n")
def test_requests_are_the_same_however_they_are_cut(data: bytes) -> None:
    oracles.head(data)
