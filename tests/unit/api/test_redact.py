from __future__ import annotations

import time

import pytest

from largeforge.api.redact import redact, redacted


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("row 17: no 'messages'", "row 17: no 'messages'"),
        ("GET https://user:pass@host/x?sig=1&a=2 failed", "GET https://***@host/x?*** failed"),
        ("Authorization: Bearer abcdefghij", "Authorization: ***"),
        ("sent bearer abcdefghij.k", "sent bearer ***"),
        ('{"api_key": "abcdefgh"}', '{"api_key": "***"}'),
        ("HF_TOKEN=hf_abcdefghijklmnop", "HF_TOKEN=***"),
        ("key sk-abcdefghijklmnop here", "key *** here"),
        ("a\nb\x1b[31m\tc", "a b [31m c"),
        ("max_tokens: 2048", "max_tokens: 2048"),
    ],
)
def test_what_looks_like_a_credential_is_gone(text, safe):
    assert redact(text) == safe


def test_long_texts_are_cut():
    assert len(redact("x" * 5000)) == 1024
    assert redact("x" * 20, limit=5) == "xxxx…"


def test_a_long_text_takes_no_longer_than_a_short_one():
    begun = time.process_time()
    for text in ("x" * 100_000, "x-" * 50_000, "token" * 20_000, "a://" * 30_000, "eyJ-" * 30_000):
        redact(text)
    assert time.process_time() - begun < 1


def test_each_text_of_a_value_of_json_is_redacted_and_its_shape_stays():
    value = {"a": ["token=abcdef", 1, None, {"b": True}]}
    assert redacted(value) == {"a": ["token=***", 1, None, {"b": True}]}
    assert redacted(["x" * 20], limit=5) == ["xxxx…"]
