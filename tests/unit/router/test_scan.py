from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from largeforge.router import scan as module
from largeforge.router.classify import WINDOW, window
from largeforge.router.excerpt import text_of
from largeforge.router.members import members
from largeforge.router.openai import ApiError
from largeforge.router.scan import (
    AUTHORITY,
    INSTRUCTIONS,
    MAX_TOKENS,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Call,
    scan,
)

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


def scan_as(body: bytes, *, as_long: bool) -> Call:
    """As a body is scanned that is short, or long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONG_BYTES", 0 if as_long else len(body) + 1)
        return scan(body)


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


@given(bodies(), st.booleans())
@settings(max_examples=160, deadline=None)
def test_only_the_models_value_is_replaced(parts: tuple[bytes, bytes, bytes, str], as_long: Any):
    before, value, after, name = parts
    call = scan_as(before + value + after, as_long=as_long)
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
    assert short in (None, members(body)["model"])


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


@pytest.mark.parametrize("key", ["messages", "prompt", "input"])
@pytest.mark.parametrize("depth", [63, 64, 1000, 200_000])
def test_the_nesting_of_a_long_prompt_counts_too(key: str, depth: int):
    body = f'{{"model":"a","{key}":{"[" * depth}"{"long " * 1000}"{"]" * depth}}}'.encode()
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
    assert "".join(scan(json.dumps({"model": "auto", **members}).encode()).user_texts(1)) == text


def test_earlier_messages_of_the_user_come_first_and_only_so_many():
    roles = ("user", "assistant", "user", "system", "user")
    messages = [{"role": role, "content": f"{index}"} for index, role in enumerate(roles)]
    for key in ("messages", "input"):
        call = scan(json.dumps({"model": "auto", key: messages}).encode())
        assert (call.user_texts(2), call.user_texts(9)) == (["2", "4"], ["0", "2", "4"])


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


@pytest.mark.parametrize("name", AUTHORITY)
@pytest.mark.parametrize("value", ['"x"', '""', "null", "{}", "1"])
def test_a_member_that_names_authority_is_refused_by_its_name(name, value):
    for spelled in (name, f"\\u00{ord(name[0]):02x}{name[1:]}"):
        with pytest.raises(ApiError, match=f"'{name}', which is not a client's to say") as caught:
            scan(f'{{"model":"auto","{spelled}":{value}}}'.encode())
        assert (caught.value.status, caught.value.param, caught.value.code) == (400, name, "forbidden_member")


def test_such_a_name_deeper_in_a_body_is_content():
    body = b'{"model":"auto","tools":[{"api_key":"x"}],"messages":[{"role":"user","content":"\\"api_base\\":1"}]}'
    assert scan(body).body == body


BITS = {
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "top_k": TOP_K,
    "max_tokens": MAX_TOKENS,
    "max_completion_tokens": MAX_TOKENS,
    "max_output_tokens": MAX_TOKENS,
    "instructions": INSTRUCTIONS,
}
ROLES = st.sampled_from(["user", "system", "developer", "assistant", "tool"])
WORDS = st.text(st.sampled_from('ab {}[]"\\\n\u00e9\u4e2d\U0001f600'), max_size=20)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": ROLES, "content": WORDS},
        optional={"model": WORDS, "messages": st.just([]), "name": st.sampled_from(['"model":', '"stream":'])},
    ),
    max_size=4,
)


@st.composite
def chats(draw: st.DrawFn):
    """A chat as clients write it: the members in any order, with what could be taken for another of them."""
    chat: dict[str, Any] = {"model": draw(WORDS), "messages": draw(MESSAGES)}
    chat |= {name: draw(st.sampled_from([None, 1, 0.5])) for name in draw(st.sets(st.sampled_from(sorted(BITS))))}
    if draw(st.booleans()):
        chat["stream"] = draw(st.booleans())
    if draw(st.booleans()):
        chat["tools"] = [{"messages": draw(st.sampled_from([chat["messages"], [], "messages"])), "stream": 1}]
    members = draw(st.permutations(sorted(chat.items())))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    return json.dumps(dict(members), ensure_ascii=draw(st.booleans()), separators=separators).encode()


@given(chats(), st.booleans())
@settings(max_examples=250, deadline=None)
def test_the_scan_says_of_a_chat_what_json_says(body: bytes, as_long: Any):
    chat = json.loads(body)
    call = scan_as(body, as_long=as_long)
    assert (call.model, call.stream) == (chat["model"], chat.get("stream") is True)
    assert call.present == sum({BITS[name] for name in chat if name in BITS})
    roles = [message["role"] for message in chat["messages"]]
    assert call.has_system is bool({"system", "developer"} & set(roles))
    users = [message["content"] for message in chat["messages"] if message["role"] == "user"]
    assert call.user_texts(2) == users[-2:]
    assert json.loads(b"".join(call.with_model(b'"other"'))) == chat | {"model": "other"}
    at = call.messages_at
    assert (at is None) is (not roles)
    if at is not None:
        first = {"role": "system", "content": "x"}
        sent = json.loads(body[:at] + json.dumps(first).encode() + b"," + body[at:])
        assert sent == chat | {"messages": [first, *chat["messages"]]}


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(1, 9000), st.booleans())
@settings(max_examples=100, deadline=None)
def test_the_part_of_a_long_text_that_is_decoded_is_classified_as_the_whole(texts: list[str], times: int, ascii_only):
    text = "".join(text * times for text in texts)
    raw = msgspec.Raw(json.dumps(text, ensure_ascii=ascii_only).encode())
    assert window(text_of(raw)) == window(text)


def test_of_a_long_prompt_only_the_ends_are_decoded():
    text = "some words " * 100_000
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()
    assert 2 * WINDOW < len(scan(body).user_texts(1)[0]) < 8 * WINDOW


@pytest.mark.parametrize(("value", "follows"), [("resp_1", True), (7, True), (None, False)])
def test_a_request_goes_on_from_a_response_that_it_names(value: Any, follows: bool):  # noqa: FBT001 - by pytest
    assert scan(json.dumps({"model": "m", "previous_response_id": value}).encode()).follows_response is follows
    assert not scan(b'{"model":"m"}').follows_response
