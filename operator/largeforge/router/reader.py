"""Requests out of a client's bytes, on llhttp (strict).

llhttp decides what is valid. Where a head ends is looked for here as well, and a request on which the two views differ
is refused: so no byte of a body can ever be taken for a request.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from largeforge.router.http1 import Header, head_end
from largeforge.router.openai import ApiError
from largeforge.router.settings import Settings


class RequestReader:
    """Reads one request after the other; `ApiError` says what is wrong with one, and ends the reading."""

    def __init__(self, settings: Settings, on_head: Callable[[list[Header]], None]) -> None:
        self._max_head_bytes = settings.max_head_bytes
        self._max_headers = settings.max_headers
        self._max_body_bytes = settings.max_body_bytes
        self._on_head = on_head
        self._parser = httptools.HttpRequestParser(self)
        self.reset()

    def reset(self) -> None:
        """Begin with the next request."""
        self._tail = b""
        self._head_bytes = 0
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._raw_bytes = 0
        self._remaining = 0
        self._chunked = False
        self.method = b""
        self.headers: list[Header] = []
        self.http10 = False
        self.expects_continue = False
        self.keep_alive = False
        self.head_complete = False
        self.complete = False
        self.surplus = False
        """Whether more came behind a chunked body, in the same piece: it cannot be told apart, and is lost."""

    @property
    def begun(self) -> bool:
        """Whether a byte of the request has come."""
        return self._head_bytes > 0

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self._url.partition(b"?")[0]

    @property
    def bodyless(self) -> bool:
        """Whether its head says that no body follows."""
        return self._remaining == 0 and not self._chunked

    def take_body(self) -> bytes:
        """The body, which is forgotten here."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        return body

    def feed(self, data: bytes, at: int) -> int:
        """Read *data* from *at* to the end of the head, or of the body; the index where that is."""
        try:
            return self._feed_body(data, at) if self.head_complete else self._feed_head(data, at)
        except httptools.HttpParserError as error:
            raise _malformed(str(error)) from error

    def _feed_head(self, data: bytes, at: int) -> int:
        begin = at
        if not self._tail:
            while at < len(data) and data[at] in b"\r\n":
                at += 1  # old clients end a body with an empty line (RFC 9112, 2.2), and llhttp skips them
        end = head_end(self._tail, data, at)
        stop = len(data) if end < 0 else end
        self._head_bytes += stop - begin
        if self._head_bytes > self._max_head_bytes:
            raise ApiError(
                431, f"the request's head is longer than {self._max_head_bytes} bytes", code="headers_too_large"
            )
        try:
            self._parser.feed_data(memoryview(data)[begin:stop])
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        if self.head_complete is not (end >= 0):
            raise _malformed("the head does not end with an empty line")
        if end < 0:
            self._tail = (self._tail + data[at:stop])[-3:]
        else:
            self._check_head()
        return stop

    def _ignore_upgrade(self) -> None:
        """Go on with HTTP/1.1, as RFC 9110, 7.8 allows: llhttp ends at an `Upgrade`, so it reads the head once more.

        What it reads is what it has found to be valid, without that one field.
        """
        method, url, headers = self._parser.get_method(), self._url, self.headers
        if method == b"CONNECT":
            raise _malformed("CONNECT is not supported")
        version = self._parser.get_http_version().encode()
        lines = b"".join(b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade")
        self._parser = httptools.HttpRequestParser(self)
        self._url, self.headers, self.head_complete, self.complete = b"", [], False, False
        self._parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (method, url, version, lines))

    def _check_head(self) -> None:
        """What llhttp lets through, and what another server could read in another way; then who asks, then how much."""
        if len(self.headers) > self._max_headers:
            raise ApiError(431, f"the request has more than {self._max_headers} headers", code="headers_too_large")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise ApiError(505, "only HTTP/1.1 and HTTP/1.0 are understood", code="http_version_not_supported")
        self.http10 = version == "1.0"
        self.method = self._parser.get_method()
        expected = self._check_framing()
        if not self._url.startswith(b"/"):
            raise _malformed("the target must be a path")
        self._on_head(self.headers)
        if self._remaining > self._max_body_bytes:
            raise self._too_long()
        if expected is not None and not self.http10:
            if expected.lower() != b"100-continue":
                raise ApiError(417, "only Expect: 100-continue is understood", code="expectation_failed")
            self.expects_continue = True

    def _check_framing(self) -> bytes | None:
        """How long the body is; returns what is expected."""
        hosts = 0
        expected = None
        for name, value in self.headers:
            if name == b"content-length":
                self._remaining = int(value)
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or self.http10:
                    raise _malformed("the only transfer encoding is chunked, in HTTP/1.1")
                self._chunked = True
            elif name == b"host":
                hosts += 1
            elif name == b"expect":
                expected = value
        if hosts > 1 or (hosts == 0 and not self.http10):
            raise _malformed("exactly one Host header is needed")
        return expected

    def _feed_body(self, data: bytes, at: int) -> int:
        stop = len(data) if self._chunked else min(len(data), at + self._remaining)
        try:
            self._parser.feed_data(memoryview(data)[at:stop])
        except httptools.HttpParserError:
            if not self.complete:
                raise
            self.surplus = True
        if self._chunked:
            self._raw_bytes += stop - at
            # Chunks of a few bytes, or extensions, cost more to read than they carry.
            raw_limit = 2 * self._max_body_bytes + self._max_head_bytes
            if self._body_bytes > self._max_body_bytes or self._raw_bytes > raw_limit:
                raise self._too_long()
        else:
            self._remaining -= stop - at
            if self.complete is not (self._remaining == 0):
                raise _malformed("the body is not as long as its Content-Length")
        return stop

    def _too_long(self) -> ApiError:
        limit = self._max_body_bytes
        return ApiError(413, f"the request body is longer than {limit} bytes", code="request_too_large")

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """A message behind a chunked one, in the same piece."""
        self.surplus = self.complete

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        if not self.complete:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect the head's fields; trailers are dropped."""
        if not self.head_complete:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """From here on llhttp reads the body."""
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        if not self.complete:
            self._body.append(body)
            self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Read now what llhttp forgets after this callback."""
        if not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()


def _malformed(why: str) -> ApiError:
    return ApiError(400, f"malformed HTTP request: {why}", code="malformed_request")
