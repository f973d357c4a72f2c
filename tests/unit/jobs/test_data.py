from __future__ import annotations

import json

import pytest

from largeforge.api.run import MountedDataset
from largeforge.jobs import data
from largeforge.jobs.errors import DatasetInvalidError, DatasetMissingError

USER = {"role": "user", "content": "Is it hot?"}
ANSWER = {"role": "assistant", "content": "It is."}
CHAT = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "Is it hot?", "completion": " It is."}


def dataset(tmp_path, *rows, name="train.jsonl", index=0):
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return MountedDataset(uri=f"pvc://data/{name}", path=str(path), field=f"spec.datasets[{index}].uri")


def message_of(tmp_path, *rows):
    with pytest.raises(DatasetInvalidError) as caught:
        data.read([dataset(tmp_path, *rows)])
    return str(caught.value)


def test_conversations_and_pairs_are_read_and_other_columns_left_out(tmp_path):
    assert data.read([dataset(tmp_path, CHAT | {"id": 7})]).rows == [CHAT]
    assert data.read([dataset(tmp_path, PAIR | {"source": "web"})]).rows == [PAIR]
    conversational = {"prompt": [USER], "completion": [ANSWER]}
    assert data.read([dataset(tmp_path, conversational)]).rows == [conversational]


def test_only_lists_of_messages_need_a_chat_template(tmp_path):
    assert data.read([dataset(tmp_path, CHAT)]).conversational
    assert data.read([dataset(tmp_path, {"prompt": [USER], "completion": [ANSWER]})]).conversational
    assert not data.read([dataset(tmp_path, PAIR)]).conversational


def test_several_data_sets_are_one_after_the_other_and_know_their_places(tmp_path):
    first = dataset(tmp_path, CHAT, "", CHAT, name="a.jsonl")
    second = dataset(tmp_path, CHAT, name="b.jsonl", index=1)
    rows = data.read([first, second])
    assert [(place.uri, line) for place, line in rows.places] == [
        ("pvc://data/a.jsonl", 1),
        ("pvc://data/a.jsonl", 3),
        ("pvc://data/b.jsonl", 1),
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "is not JSON; a .jsonl file has one object on each line"),
        ("[" * 100_000, "is not JSON; a .jsonl file has one object on each line"),
        ("[1]", "must be an object (got list)"),
        ("null", "must be an object (got null)"),
        ({}, "needs messages, or prompt and completion"),
        ({"prompt": "a"}, "needs messages, or prompt and completion"),
        (
            {"conversations": []},
            "needs messages, or prompt and completion ('conversations': looks like ShareGPT;"
            " rename it to messages, from to role and value to content)",
        ),
        (
            {"instruction": "a", "output": "b"},
            "needs messages, or prompt and completion ('instruction': looks like Alpaca;"
            " rename instruction to prompt and output to completion)",
        ),
        (CHAT | PAIR, "has messages and prompt or completion; keep one form"),
        ({"messages": "a"}, "messages: must be a list of messages (got text)"),
        ({"messages": []}, "messages: must have at least one message"),
        ({"messages": [USER]}, "messages: must have a message of role assistant, which is what is learnt"),
        ({"messages": ["a", ANSWER]}, "messages[0]: must be an object with role and content (got text)"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content: is missing"),
        ({"messages": [{"content": "a"}]}, "messages[0].role: is missing"),
        ({"messages": [USER, ANSWER | {"content": None}]}, "messages[1].content: must be a text (got null)"),
        ({"messages": [USER, ANSWER | {"content": [1]}]}, "messages[1].content: must be a text (got list)"),
        ({"messages": [USER, ANSWER | {"content": " \n"}]}, "messages[1].content: must not be empty"),
        (
            {"messages": [USER, ANSWER | {"role": "gpt"}]},
            'messages[1].role: must be one of system, user, assistant (got "gpt")',
        ),
        (
            {"messages": [USER, ANSWER | {"role": 3}]},
            "messages[1].role: must be one of system, user, assistant (got number)",
        ),
        ('{"prompt": "a", "completion": "\\ud800"}', "completion: has half of a surrogate pair, which is no character"),
        ({"prompt": "a", "completion": 1}, "completion: must be a text (got number)"),
        ({"prompt": "a", "completion": ""}, "completion: must not be empty"),
        ({"prompt": "a", "completion": [ANSWER]}, "completion: must be a text as prompt is (got list)"),
        ({"prompt": [USER], "completion": "a"}, "completion: must be a list as prompt is (got text)"),
        (
            {"prompt": [USER], "completion": [USER]},
            "completion: must have a message of role assistant, which is what is learnt",
        ),
    ],
)
def test_a_bad_row_is_named_by_file_line_path_and_type(tmp_path, row, problem):
    assert message_of(tmp_path, CHAT, row) == f"pvc://data/train.jsonl line 2: {problem}"


def test_an_error_never_shows_content_but_for_the_start_of_a_role(tmp_path):
    secret = "hunter2 " * 20
    text = message_of(
        tmp_path,
        {"messages": [{"role": secret, "content": secret}]},
        {"messages": [{"role": "user", "content": [secret]}]},
        {secret: secret},
        f'{{"{secret}',
    )
    assert text.count("hunter2") == 4
    assert text.startswith("pvc://data/train.jsonl line 1: messages[0].role: must be one of system, user, assistant")


def test_five_problems_are_shown_and_the_others_counted(tmp_path):
    text = message_of(tmp_path, *["{"] * 8)
    assert "line 5: is not JSON" in text
    assert "line 6" not in text
    assert text.endswith("; and 3 more")


def test_one_run_takes_one_form(tmp_path):
    assert message_of(tmp_path, CHAT, PAIR) == (
        "pvc://data/train.jsonl line 2: has prompt and completion as text, but the first row has messages;"
        " one run takes one form"
    )
    with pytest.raises(DatasetInvalidError, match=r"b\.jsonl line 1: has messages, but the first row has prompt"):
        data.read([dataset(tmp_path, PAIR, name="a.jsonl"), dataset(tmp_path, CHAT, name="b.jsonl", index=1)])


def test_a_file_that_is_not_utf8_is_named_by_line(tmp_path):
    place = dataset(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(json.dumps(CHAT).encode() + b'\n{"prompt": "\xff"}\n')
    with pytest.raises(DatasetInvalidError, match=r"line 2: is not UTF-8$"):
        data.read([place])


def test_a_byte_order_mark_is_no_content(tmp_path):
    place = dataset(tmp_path)
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(CHAT).encode())
    assert data.read([place]).rows == [CHAT]


def test_an_empty_file_is_invalid_and_a_missing_one_is_missing(tmp_path):
    assert message_of(tmp_path, "", "  ") == "pvc://data/train.jsonl: has no rows"
    missing = MountedDataset(uri="pvc://data/no.jsonl", path=str(tmp_path / "no"), field="spec.datasets[1].uri")
    with pytest.raises(DatasetMissingError) as caught:
        data.read([missing])
    assert caught.value.detail().model_dump() == {
        "reason": "DatasetMissing",
        "message": "pvc://data/no.jsonl: there is no such file; write it there, or correct the uri",
        "field": "spec.datasets[1].uri",
    }
    with pytest.raises(DatasetMissingError, match="is a folder"):
        data.read([missing.model_copy(update={"path": str(tmp_path)})])


def test_an_error_carries_the_field_and_the_exit_code_of_bad_data(tmp_path):
    with pytest.raises(DatasetInvalidError) as caught:
        data.read([dataset(tmp_path, "{", index=3)])
    assert (caught.value.field, caught.value.exit_code) == ("spec.datasets[3].uri", 65)


def test_the_digest_sees_content_and_order_but_not_spelling(tmp_path):
    one = data.read([dataset(tmp_path, CHAT, {"messages": [ANSWER, USER]})]).digest
    spelt = json.dumps({"id": 1, **CHAT}, indent=None, separators=(" , ", " : "))
    same = data.read([dataset(tmp_path, spelt, {"messages": [ANSWER, USER]})]).digest
    turned = data.read([dataset(tmp_path, {"messages": [ANSWER, USER]}, CHAT)]).digest
    assert one == same
    assert one != turned


def test_a_split_is_the_same_for_the_same_seed_and_leaves_no_row_out():
    train, held_out = data.split(100, ratio=0.1, seed=42)
    assert (train, held_out) == data.split(100, ratio=0.1, seed=42)
    assert len(held_out) == 10
    assert sorted(train + held_out) == list(range(100))
    assert held_out != data.split(100, ratio=0.1, seed=43)[1]


def test_a_ratio_above_0_holds_out_at_least_one_row_and_trains_on_at_least_one():
    assert data.split(5, ratio=0.0, seed=1) == ([0, 1, 2, 3, 4], [])
    assert len(data.split(5, ratio=0.01, seed=1)[1]) == 1
    assert [len(part) for part in data.split(2, ratio=0.5, seed=1)] == [1, 1]
    with pytest.raises(DatasetInvalidError, match="only one in all"):
        data.split(1, ratio=0.1, seed=1)
