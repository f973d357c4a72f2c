from __future__ import annotations

import json

import pytest

from largeforge.jobs import formats
from largeforge.jobs.messages import ROLES, SHAREGPT_ROLES
from largeforge.jobs.problems import RowError
from tests.unit.jobs.runs import ANSWER, CHAT, PAIR, USER

ROLE_NAMES = ", ".join(ROLES)
SPEAKERS = ", ".join(SHAREGPT_ROLES)
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


def convert(row, chosen=None, columns=None, first=None):
    columns = columns or {}
    chosen = chosen or formats.detect(row, columns)
    return formats.converter(chosen, first or row, columns)(row)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (CHAT, "Messages"),
        (SHAREGPT, "ShareGPT"),
        (PAIR, "PromptCompletion"),
        (ALPACA, "Alpaca"),
        ({"text": "a"}, "Text"),
        (CHAT | {"prompt": "the first question again"}, "Messages"),
        (ALPACA | {"text": "all of it together"}, "Alpaca"),
        ({"prompt": "a", "chosen": "b"}, None),
        ({"messages": None, "text": "a"}, "Text"),
    ],
)
def test_a_format_is_found_by_its_columns(row, found):
    assert formats.detect(row, {}) == found


def test_columns_under_other_names_are_found_by_the_map():
    columns = {"prompt": "question", "completion": "answer"}
    assert formats.detect({"question": "a", "answer": "b"}, columns) == "PromptCompletion"
    assert convert({"question": "a", "answer": "b"}, columns=columns) == {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("row", "becomes"),
    [
        (CHAT | {"id": 7}, CHAT),
        ({"messages": [USER | {"name": "bob"}, ANSWER]}, CHAT),
        ({"messages": [{"role": "system", "content": ""}, USER, ANSWER]}, CHAT),
        ({"messages": [USER, ANSWER | {"tool_calls": None, "weight": 1}]}, CHAT),
        ({"messages": json.dumps([USER, ANSWER])}, CHAT),
        (PAIR, PAIR),
        ({"prompt": [USER], "completion": [ANSWER]}, {"prompt": [USER], "completion": [ANSWER]}),
        ({"text": "a", "url": "b"}, {"text": "a"}),
        (
            SHAREGPT | {"system": "Be kind."},
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                ]
            },
        ),
        (
            ALPACA,
            {
                "prompt": [{"role": "user", "content": "Add.\n\n1 and 2"}],
                "completion": [{"role": "assistant", "content": "3"}],
            },
        ),
        (
            ALPACA | {"input": "", "system": "Be brief."},
            {
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add."}],
                "completion": [{"role": "assistant", "content": "3"}],
            },
        ),
    ],
)
def test_rows_become_trls(row, becomes):
    assert convert(row) == becomes


EMPTY = "must not be empty; write the text or remove the row"


@pytest.mark.parametrize(
    ("chosen", "row", "path", "text", "empty_answer"),
    [
        ("Messages", {}, "messages", "is missing", False),
        ("Messages", {"messages": "a"}, "messages", "must be a list of messages (got text)", False),
        ("Messages", {"messages": "[1"}, "messages", "must be a list of messages (got text that is no JSON)", False),
        ("Messages", {"messages": []}, "messages", "must have at least one message", True),
        (
            "Messages",
            {"messages": [USER]},
            "messages",
            "must have a message of role assistant, which is what is learnt; add one",
            True,
        ),
        ("Messages", {"messages": [1]}, "messages[0]", "must be an object with role and content (got number)", False),
        ("Messages", {"messages": [{"content": "a"}]}, "messages[0].role", "is missing", False),
        ("Messages", {"messages": [USER, {"role": "assistant"}]}, "messages[1].content", "is missing", False),
        (
            "Messages",
            {"messages": [USER, ANSWER, {"role": "gpt", "content": "x"}]},
            "messages[2].role",
            f'must be one of {ROLE_NAMES} (got "gpt")',
            False,
        ),
        (
            "Messages",
            {"messages": [{"role": "x" * 99, "content": "x"}]},
            "messages[0].role",
            f'must be one of {ROLE_NAMES} (got "{"x" * 32}")',
            False,
        ),
        (
            "Messages",
            {"messages": [{"role": 7, "content": "x"}]},
            "messages[0].role",
            f"must be one of {ROLE_NAMES} (got number)",
            False,
        ),
        ("Messages", {"messages": [USER, ANSWER | {"content": None}]}, "messages[1].content", "is missing", True),
        ("Messages", {"messages": [USER, ANSWER | {"content": " \n"}]}, "messages[1].content", EMPTY, True),
        ("Messages", {"messages": [USER | {"content": ""}, ANSWER]}, "messages[0].content", EMPTY, False),
        (
            "Messages",
            {"messages": [USER, ANSWER | {"content": [1]}]},
            "messages[1].content",
            "must be a text (got list)",
            False,
        ),
        (
            "Messages",
            {"messages": [USER, ANSWER | {"tool_calls": [{}]}]},
            "messages[1].tool_calls",
            "calls of tools are not read; write the call into content",
            False,
        ),
        (
            "Messages",
            {"messages": [USER, ANSWER | {"weight": 0}]},
            "messages[1].weight",
            "weights of messages are not read; remove it, or use training.assistantOnlyLoss",
            False,
        ),
        (
            "Messages",
            {"messages": SHAREGPT["conversations"]},
            "messages[0]",
            "has from and value: looks like ShareGPT; set format: ShareGPT",
            False,
        ),
        (
            "ShareGPT",
            {"conversations": CHAT["messages"]},
            "conversations[0]",
            "has role and content: looks like messages; set format: Messages",
            False,
        ),
        (
            "ShareGPT",
            {"conversations": [{"from": "alien", "value": "x"}]},
            "conversations[0].from",
            f'must be one of {SPEAKERS} (got "alien")',
            False,
        ),
        ("ShareGPT", {"conversations": [{"value": "x"}]}, "conversations[0].from", "is missing", False),
        (
            "ShareGPT",
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]},
            "conversations[1].value",
            EMPTY,
            True,
        ),
        (
            "ShareGPT",
            {"conversations": [2]},
            "conversations[0]",
            "must be an object with from and value (got number)",
            False,
        ),
        ("PromptCompletion", {"prompt": "a"}, "completion", "is missing", True),
        ("PromptCompletion", {"completion": "a", "prompt": ""}, "prompt", EMPTY, False),
        ("PromptCompletion", {"prompt": "a", "completion": "  "}, "completion", EMPTY, True),
        (
            "PromptCompletion",
            {"prompt": "a", "completion": [ANSWER]},
            "completion",
            "must be a text, as the first row's prompt is (got list)",
            False,
        ),
        (
            "PromptCompletion",
            {"prompt": [USER], "completion": "a"},
            "completion",
            "must be a list of messages, as the first row's prompt is (got text)",
            False,
        ),
        ("Alpaca", {"output": "a"}, "instruction", "is missing", False),
        ("Alpaca", {"instruction": "a", "output": ""}, "output", EMPTY, True),
        ("Alpaca", ALPACA | {"input": 3}, "input", "must be a text or left out (got number)", False),
        ("Text", {"text": ""}, "text", EMPTY, True),
        ("Text", {"text": 1.5}, "text", "must be a text (got number)", False),
        ("Text", {}, "text", "is missing", True),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_path(chosen, row, path, text, empty_answer):
    with pytest.raises(RowError) as caught:
        convert(row, chosen)
    problem = caught.value.problem
    assert (problem.path, problem.text, problem.empty_answer) == (path, text, empty_answer)


def test_a_column_with_the_other_formats_content_is_read_as_what_it_is():
    columns = {}
    row = {"messages": SHAREGPT["conversations"]}
    assert formats.by_content("Messages", row, columns) == "ShareGPT"
    assert columns == {"conversations": "messages"}
    columns = {"conversations": "chat"}
    assert formats.by_content("ShareGPT", {"chat": CHAT["messages"]}, columns) == "Messages"
    assert columns == {"messages": "chat"}
