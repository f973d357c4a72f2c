from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from largeforge.router import scan as module
from largeforge.router.openai import ApiError
from largeforge.router.scan import scan

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["model", "stream", '"model":', '\\"model\\"', 'the "model', "}", "]", "\\", "é\u2028"])
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["model", "stream", "a"]) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
KEYS = st.sampled_from(['"model"', '"mod\\u0065l"', '"\\u006D\\u006fdel"'])
SPACE = st.text(" \t\r\n", max_size=3)


def surrogate_free(text: str):
    return text.encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn):
    """A valid body with `model` somewhere, written in any way; and its parts before and after the model's value."""
    others = draw(
        st.dictionaries(
            st.text(max_size=8).filter(lambda k: k not in ("model", "stream", "messages", "prompt")), JSON, max_size=4
        )
    )
    ascii_only = draw(st.booleans())
    members = [
        (json.dumps(k, ensure_ascii=ascii_only), json.dumps(v, ensure_ascii=ascii_only)) for k, v in others.items()
    ]
    if draw(st.booleans()):
        members.insert(
            draw(st.integers(0, len(members))), ('"stream"', draw(st.sampled_from(["true", "false", "null"])))
        )
    name = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=10))
    value = json.dumps(name, ensure_ascii=ascii_only)
    at = draw(st.integers(0, len(members)))

    def space() -> str:
        return draw(SPACE)

    written = [f"{space()}{k}{space()}:{space()}{v}{space()}" for k, v in members]
    before = space() + "{" + "".join(m + "," for m in written[:at]) + space() + draw(KEYS) + space() + ":" + space()
    after = space() + "".join("," + m for m in written[at:]) + "}" + space()
    return before.encode(), value.encode(), after.encode(), name


@given(bodies())
@settings(max_examples=120, deadline=None)
def test_only_the_models_value_is_replaced(parts: tuple[bytes, bytes, bytes, str]):
    before, value, after, name = parts
    call = scan(before + value + after)
    assert call.model == name
    spliced = b"".join(call.with_model(b'"engine-name"'))
    assert spliced == before + b'"engine-name"' + after
    assert len(spliced) == call.length_with_model(b'"engine-name"')
    assert json.loads(spliced)["model"] == "engine-name"


@given(bodies())
@settings(max_examples=80, deadline=None)
def test_the_short_way_and_the_long_way_find_the_same(parts: tuple[bytes, bytes, bytes, str]):
    body = b"".join(parts[:3])
    short = module._unambiguous_span(body) if b"\\u00" not in body else None
    assert short in (None, module._walk(body))


@given(st.binary(max_size=60) | st.text(max_size=60).map(surrogate_free) | JSON.map(lambda v: json.dumps(v).encode()))
@settings(max_examples=120, deadline=None)
@example(b"")
@example(b"\xef\xbb\xbf{}")
def test_whatever_comes_is_a_call_or_a_400(body: bytes):
    try:
        model, status = scan(body).model, 200
    except ApiError as error:
        model, status = None, error.status
    assert status == 400 or json.loads(body)["model"] == model


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"model":"a","model":"b"}', "'model' twice"),
        (b'{"model":"a","x":{},"mod\\u0065l":"b"}', "'model' twice"),
        (b'{"\\u006dodel":"a","model":"b"}', "'model' twice"),
        (b'{"model":"a","stream":true,"stream":false}', "'stream' twice"),
        (b'{"model":"a","stream":true,"str\\u0065am":false}', "'stream' twice"),
        (b'{"messages":[]}', "you must provide a model"),
        (b'{"model":null}', "Expected `str`, got `null`"),
        (b'{"model":"a","stream":"yes"}', "Expected `bool | null`"),
        (b"[1]", "Expected `object`"),
        (b"", "not valid JSON"),
        (b'{"model":"a",}', "not valid JSON"),
        (b'{"model":"a"}{}', "trailing characters"),
        (b'{"model":"a","x":NaN}', "not valid JSON"),
        (b'{"model":"a","x":"\x01"}', "not valid JSON"),
        (b'{"model":"a","x":"\xff"}', "not UTF-8"),
        (b'{"model":"a","x":"\xed\xa0\x80"}', "not UTF-8"),
        (b"\xef\xbb\xbf" + b'{"model":"a"}', "not valid JSON"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, message: str):
    with pytest.raises(ApiError) as caught:
        scan(body)
    assert caught.value.status == 400
    assert message in caught.value.message


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [62, 63, 64, 1000, 200_000])
def test_nesting_is_allowed_to_64_levels(opening: str, depth: int):
    closing = "]" if opening == "[" else "}"
    inner = "1" if opening != "[" else ""
    body = ('{"model":"a","x":' + opening * depth + inner + closing * depth + "}").encode()
    if depth + 1 <= 64:
        assert scan(body).model == "a"
    else:
        with pytest.raises(ApiError, match="nested deeper than 64"):
            scan(body)


def test_brackets_in_text_are_no_nesting():
    text = "[{" * 5000
    assert scan(json.dumps({"model": "a", "x": text, "y": {"model": "]"}}).encode()).model == "a"


def test_what_a_client_wrote_is_not_repeated_in_an_error():
    with pytest.raises(ApiError) as caught:
        scan(b'{"model":{"secret-word":1}}')
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}, "one"),
        ({"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}, "two"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image_url", "image_url": {"url": "http://x"}},
                            {"type": "text", "text": "b"},
                        ],
                    }
                ]
            },
            "a\nb",
        ),
        ({"messages": [{"role": "system", "content": "one"}]}, ""),
        ({"messages": [{"role": "user", "content": None}]}, ""),
        ({"messages": [{"role": "user", "content": 5}]}, ""),
        ({"messages": [{"role": "user"}]}, ""),
        ({"messages": "text"}, ""),
        ({"messages": [{"role": "user", "content": 'é\n"x"'}]}, 'é\n"x"'),
        ({"prompt": "one"}, "one"),
        ({"prompt": ["one", "two"]}, "one\ntwo"),
        ({"prompt": [1, 2, 3]}, ""),
        ({"prompt": [[1, 2], [3]]}, ""),
        ({}, ""),
    ],
)
def test_the_classified_text_is_the_last_user_message(members: dict[str, Any], text: str):
    assert scan(json.dumps({"model": "auto", **members}).encode()).user_text() == text


@pytest.mark.parametrize("flag", [True, False, None])
def test_stream_is_seen(flag: Any):
    assert scan(json.dumps({"model": "a", "stream": flag}).encode()).stream is (flag is True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":' + b"[" * 2_000_000,
        b'{"model":"a","x":[' + b"[]," * 500_000 + b"1]}",
        b'{"model":"a","model2":["' + b'\\"' * 1_000_000 + b'"]}',
        b'{"model":"a"' + b',"model":"a"' * 100_000 + b"}",
        b'{"model":"a"' + b',"a":[{}]' * 100_000 + b"}",
        b'{"model"' + b" " * 2_000_000 + b':"a","stream":1,"stream":2}',
    ],
)
def test_hostile_bodies_take_no_long_time(body: bytes):
    begun = time.process_time()
    with contextlib.suppress(ApiError):
        scan(body)
    assert time.process_time() - begun < 2  # quadratic time would be minutes
