"""Coverage-guided search for bytes that break an oracle: `python -m tests.fuzz.atheris_bytes body|head SECONDS`.

What it finds lies in `crash-*` where it was started; a test in `test_bytes.py` keeps it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["largeforge.router"]):
    from largeforge.router import http1, reader, scan  # noqa: F401 - instrumented here, used by the oracles

from tests.fuzz import oracles
from tests.unit.router.lab import CHAT, CHAT_STREAM, LAST, chunk, post

CHUNKED = post(b"", headers=b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
TARGETS = {"body": oracles.body, "head": oracles.head}
SEEDS = {
    "body": (CHAT, CHAT_STREAM, b'{"mod\\u0065l":"a","x":[{"model":"\\"model\\""}],"stream":null}'),
    "head": (
        post(CHAT) + post(CHAT),
        CHUNKED + chunk(CHAT) + LAST,
        post(b"x", headers=b"Connection: close, X-A\r\nX-A: b\r\nX-LargeForge-Expert: c\r\nExpect: 100-continue\r\n"),
        post(b"x", headers=b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    ),
}
WORDS = {
    "body": ('\\"model\\"', '\\"stream\\"', "\\\\u0065", '\\"messages\\"', "true", "[[", "{{", '\\"', "1e5"),
    "head": (
        "\\x0d\\x0a",
        "\\x0d\\x0a\\x0d\\x0a",
        "Content-Length: ",
        "Transfer-Encoding: chunked",
        "Upgrade: ",
        "0\\x0d\\x0a",
    ),
}


def main() -> None:
    """Fuzz one target for a time; the exit code is not 0 where something was found."""
    name, seconds = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as kept:
        corpus = Path(kept) / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[name]):
            (corpus / str(number)).write_bytes(seed)
        words = Path(kept) / "words"
        words.write_text("".join(f'"{word}"\n' for word in WORDS[name]))
        options = [f"-max_total_time={seconds}", f"-dict={words}", "-max_len=2048", "-timeout=10", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
        print(f"fuzzing {name} for {seconds} s", flush=True)  # noqa: T201 - a program for a terminal
        atheris.Fuzz()


if __name__ == "__main__":
    main()
