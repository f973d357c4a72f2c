"""The page at `/`: files that anyone may read, as nothing is in them; what the page asks carries the key typed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from largeforge.router.http1 import STATUS_LINES

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "events.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from elsewhere: what an expert answers cannot run or call out, even if it were not text."""


def _file(name: str, kind: str) -> tuple[bytes, bytes]:
    body = (Path(__file__).parent / name).read_bytes()
    lines = (
        f"content-type: {kind}",
        f"content-length: {len(body)}",
        f"content-security-policy: {_POLICY}",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "cache-control: no-cache",  # so that the page is of the router that answers it
    )
    return STATUS_LINES[200] + "".join(f"{line}\r\n" for line in lines).encode(), body


FILES: Mapping[bytes, tuple[bytes, bytes]] = MappingProxyType(
    {b"/" + (b"" if name == "index.html" else name.encode()): _file(name, kind) for name, kind in _TYPES.items()}
)
"""By path, the head of the answer without its end, and the body."""
