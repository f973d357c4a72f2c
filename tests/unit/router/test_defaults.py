from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeforge.api.expert import Defaults
from largeforge.router.defaults import Operation, additions, splice
from largeforge.router.scan import scan
from tests.unit.router.lab import EXPERTS, Lab, post, table_of

ALL = {"systemPrompt": 'You are "terse".\n', "temperature": 0.2, "topP": 0.9, "topK": 40, "maxTokens": 64}
USER = [{"role": "user", "content": "hi"}]


def spliced(body: bytes, defaults: Any = None, operation: Operation = Operation.CHAT) -> bytes:
    """What an engine gets of *body*."""
    made = additions(Defaults.model_validate(ALL if defaults is None else defaults))
    call = scan(body)
    parts, length = splice(body, [*(made.edits(operation, call) if made else ()), (call.start, call.end, b'"m"')])
    found = b"".join(parts)
    assert len(found) == length
    return found


def asked(members: dict[str, Any], defaults: Any = None, operation: Operation = Operation.CHAT) -> dict[str, Any]:
    return json.loads(spliced(json.dumps({"model": "sql"} | members).encode(), defaults, operation))


def test_what_the_client_left_out_is_put_in():
    assert asked({"messages": USER}) == {
        "temperature": 0.2,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 64,
        "model": "m",
        "messages": [{"role": "system", "content": ALL["systemPrompt"]}, *USER],
    }


@pytest.mark.parametrize(
    ("member", "value"), [("temperature", 0), ("top_p", 1), ("top_k", -1), ("max_tokens", 5), ("temperature", None)]
)
def test_what_the_client_sent_stays(member: str, value: Any):
    assert asked({"messages": USER, member: value})[member] == value


def test_either_name_of_the_longest_answer_is_the_clients_word():
    assert "max_tokens" not in asked({"messages": USER, "max_completion_tokens": 7})


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_chat_that_has_a_system_message_gets_no_other(role: str, place: int):
    messages = [*USER]
    messages.insert(place, {"role": role, "content": "mine"})
    assert asked({"messages": messages})["messages"] == messages


def test_a_word_of_a_nested_object_is_not_the_clients_word():
    found = asked({"messages": USER, "extra": {"temperature": 1, "messages": [{"role": "system"}]}})
    assert found["temperature"] == 0.2
    assert found["messages"][0]["role"] == "system"
    assert found["extra"] == {"temperature": 1, "messages": [{"role": "system"}]}


@pytest.mark.parametrize("messages", [[], None, "odd", [1]])
def test_messages_of_another_shape_are_left_to_the_engine(messages: Any):
    assert asked({"messages": messages})["messages"] == messages


def test_the_system_prompt_is_no_part_of_a_completion():
    found = asked({"prompt": "once"}, operation=Operation.COMPLETIONS)
    assert found == {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "max_tokens": 64, "model": "m", "prompt": "once"}


def test_a_response_has_its_own_names():
    found = asked({"input": "hi"}, operation=Operation.RESPONSES)
    assert (found["instructions"], found["max_output_tokens"]) == (ALL["systemPrompt"], 64)
    assert "max_tokens" not in found
    assert asked({"input": "hi", "instructions": "mine"}, operation=Operation.RESPONSES)["instructions"] == "mine"
    assert asked({"input": "hi", "max_output_tokens": 3}, operation=Operation.RESPONSES)["max_output_tokens"] == 3


def test_an_embedding_has_nothing_to_set():
    assert asked({"input": "hi"}, operation=Operation.EMBEDDINGS) == {"model": "m", "input": "hi"}


def test_no_defaults_are_no_additions():
    assert additions(Defaults()) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("messages"), inner, max_size=3),
    max_leaves=8,
)
SYSTEM = b'{"role":"system","content":"You are \\"terse\\".\\n"},'
KEYS = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "messages", "n", "odd")
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer", "tool"]), "content": JSON}),
    max_size=3,
)


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(
    others=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5),
    messages=MESSAGES | st.none() | st.text() | st.floats(allow_nan=False),
    separators=st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", "\t: ")]),
    ascii_only=st.booleans(),
)
def test_all_that_the_client_wrote_reaches_the_engine_byte_for_byte(
    *, others: dict[str, Any], messages: Any, separators: tuple[str, str], ascii_only: bool
):
    members = {"model": "sql", **others, "messages": messages}
    raw = json.dumps(members, separators=separators, ensure_ascii=ascii_only).encode(errors="replace")
    found = spliced(raw)
    inserted = {"temperature", "top_p", "top_k", "max_tokens"} - members.keys()
    if "max_completion_tokens" in members:
        inserted.discard("max_tokens")
    assert json.loads(found).keys() == members.keys() | inserted
    has_none = isinstance(messages, list) and {m["role"] for m in messages} <= {"user", "tool"} and messages
    without = found.replace(SYSTEM, b"", 1)
    assert (without != found) == bool(has_none)
    assert without.startswith(b"{")
    assert without.endswith(raw.replace(b'"sql"', b'"m"', 1)[1:])


async def test_an_engine_gets_an_experts_defaults_and_the_clients_own_bytes(lab: Lab):
    engine = await lab.engine()
    router = await lab.router(engine)
    experts = EXPERTS.replace(
        "    routing: {fallback: true}", "    defaults: {temperature: 0.5, systemPrompt: Be kind.}"
    )
    router.dispatcher.replace_table(table_of(engine.port, experts=experts))
    body = b'{ "model" : "general", "seed":12345678901234567890, "messages":[{"role":"user","content":"hi"}] }'
    assert (await router.ask(post(body))).status == 200
    assert engine.received[0].body == (
        b'{"temperature":0.5, "model" : "smol", "seed":12345678901234567890,'
        b' "messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"hi"}] }'
    )
    assert (await router.ask(post(body.replace(b"general", b"poetry")))).status == 200
    assert engine.received[1].body == body.replace(b"general", b"poetry")
