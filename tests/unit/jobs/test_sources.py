from __future__ import annotations

import errno
import json
import os

import pytest

from largeforge.jobs import sources
from largeforge.jobs.errors import DatasetInvalidError, DatasetMissingError, InvalidConfigError, RunError
from largeforge.jobs.sources import Bad, Good
from tests.unit.jobs.runs import ANSWER, CHAT, PAIR, USER, config, source, written

ALPACA = {"instruction": "Add.", "output": "3"}


def rows_of(spec):
    return list(sources.rows(sources.open_source(spec, None)))


def refusal(spec, error=DatasetInvalidError):
    with pytest.raises(error) as caught:
        sources.open_source(spec, None)
    return str(caught.value), caught.value.field


def test_good_and_bad_rows_come_in_order_with_file_and_line(tmp_path):
    secret = "my secret"
    spec = source(
        written(tmp_path / "a.jsonl", CHAT, "", "{", {"messages": [USER, {"role": secret, "content": "x"}]}, CHAT)
    )
    good, broken, wrong, last = rows_of(spec)
    assert (good.row, good.line, last.line) == (CHAT, 1, 5)
    assert str(broken) == "pvc://data/a.jsonl line 3: is not JSON; a .jsonl file has one object on each line"
    assert str(wrong).startswith("pvc://data/a.jsonl line 4: messages[1].role: must be one of system, user,")


def test_a_message_never_holds_content(tmp_path):
    content = "the patient's name"
    wrong = [
        {"messages": [{"role": "user", "content": content}]},
        {"messages": content},
        {"messages": [{"role": content * 9, "content": content}]},
        {"messages": [content]},
        {"messages": [{"role": "user", "content": [content]}, ANSWER]},
    ]
    for entry in rows_of(source(written(tmp_path / "a.jsonl", CHAT, *wrong)))[1:]:
        assert isinstance(entry, Bad)
        assert content * 2 not in str(entry)
        assert len(str(entry)) < 160


def test_all_files_of_a_folder_are_read_in_order(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    written(folder / "b.jsonl", CHAT)
    written(folder / "a.jsonl", CHAT, CHAT)
    (folder / "README.md").write_text("none of it")
    found = rows_of(source(folder))
    assert [(good.file.uri, good.line) for good in found] == [
        ("pvc://data/rows/a.jsonl", 1),
        ("pvc://data/rows/a.jsonl", 2),
        ("pvc://data/rows/b.jsonl", 1),
    ]


def test_a_file_is_known_by_its_uri_however_it_is_mounted(tmp_path):
    path = written(tmp_path / "0", CHAT)
    assert len(rows_of(source(path, uri="pvc://data/rows.jsonl"))) == 1
    assert refusal(source(path, uri="configmap://rows/data.txt")) == (
        "configmap://rows/data.txt: its name must end in one of .jsonl, .json, .csv, .parquet; rename the file",
        "spec.datasets[0].uri",
    )


def test_max_samples_takes_the_first_rows(tmp_path):
    path = written(tmp_path / "a.jsonl", CHAT, "{", CHAT, CHAT)
    assert [type(entry) for entry in rows_of(source(path, max_samples=3))] == [Good, Bad, Good]


def test_what_is_not_there_is_missing(tmp_path):
    text, field = refusal(source(tmp_path / "no.jsonl"), DatasetMissingError)
    assert text == "pvc://data/no.jsonl: there is no such file or folder; write it there, or correct the uri"
    assert field == "spec.datasets[0].uri"
    (tmp_path / "empty").mkdir()
    text, _ = refusal(source(tmp_path / "empty"), DatasetMissingError)
    assert text == "pvc://data/empty: the folder has no .jsonl, .json, .csv, .parquet; write one there"
    text, _ = refusal(source(written(tmp_path / "none.jsonl", "")))
    assert text == "pvc://data/none.jsonl: has no rows; write some, or remove it"


def test_a_file_without_any_row_says_what_stands_on_its_first_line(tmp_path):
    text, _ = refusal(source(written(tmp_path / "a.jsonl", "<html>", "</html>")))
    assert text == "pvc://data/a.jsonl line 1: is not JSON; a .jsonl file has one object on each line"


@pytest.mark.parametrize(
    ("number", "reason", "code", "text"),
    [
        (errno.EACCES, "DatasetMissing", 65, "(Permission denied); group 2000 must be able to read the file"),
        (errno.EIO, "StorageNotReady", 1, "(Input/output error); see the claim's storage"),
    ],
)
def test_a_file_that_cannot_be_read_is_the_users_or_the_storages_matter(
    tmp_path, monkeypatch, *, number, reason, code, text
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sources.files, "read", fail)
    with pytest.raises(RunError) as caught:
        sources.open_source(source(written(tmp_path / "a.jsonl", CHAT)), None)
    assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    assert str(caught.value) == f"pvc://data/a.jsonl: cannot be read {text}"


@pytest.mark.parametrize(
    ("row", "fields", "text", "field"),
    [
        (
            {"question": "a", "answer": "b"},
            {},
            'no known format has its columns ("question", "answer"); set format and columns (\'question\' may be a'
            " prompt; set columns: {prompt: question, completion: <the answer's column>})",
            "format",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {},
            'no known format has its columns ("prompt", "chosen", "rejected"); set format and columns (\'chosen\' looks'
            " like preference data, which SFT does not take)",
            "format",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}]},
            {"format": "Messages"},
            'format Messages needs the column "messages"; it has "conversations"; looks like ShareGPT; set format:'
            " ShareGPT",
            "format",
        ),
        (
            PAIR,
            {"format": "Text"},
            'format Text needs the column "text"; it has "prompt", "completion"; looks like PromptCompletion; set'
            " format: PromptCompletion",
            "format",
        ),
        (
            PAIR,
            {"columns": {"prompt": "question"}},
            'there is no column "question"; it has "prompt", "completion"',
            "columns.prompt",
        ),
    ],
)
def test_a_format_that_does_not_fit_is_said_with_a_remedy(tmp_path, row, fields, text, field):
    found, where = refusal(source(written(tmp_path / "a.jsonl", row), **fields))
    assert (found, where) == (f"pvc://data/a.jsonl: {text}", f"spec.datasets[0].{field}")


def test_a_column_that_the_format_does_not_have_is_refused(tmp_path):
    spec = source(written(tmp_path / "a.jsonl", CHAT | {"x": "y"}), columns={"instruction": "x"}, format="Messages")
    text, field = refusal(spec, InvalidConfigError)
    assert text == (
        "spec.datasets[0].columns.instruction is no column of format Messages, which has messages; remove it, or set"
        " another format"
    )
    assert field == "spec.datasets[0].columns.instruction"


def test_data_sets_of_one_kind_are_mixed_and_others_refused(tmp_path):
    chat = source(written(tmp_path / "a.jsonl", CHAT))
    sharegpt = source(written(tmp_path / "b.jsonl", {"conversations": [{"from": "gpt", "value": "a"}]}), 1)
    alpaca = source(written(tmp_path / "c.jsonl", ALPACA), 1)
    trained, held_out = sources.open_all(config(tmp_path, chat, sharegpt))
    assert ([s.convert.format for s in trained], held_out) == (["Messages", "ShareGPT"], None)
    with pytest.raises(DatasetInvalidError) as caught:
        sources.open_all(config(tmp_path, chat, alpaca))
    assert str(caught.value) == (
        "spec.datasets[1] (Alpaca) gives prompt and completion as messages, but spec.datasets[0] (Messages) gives"
        " messages; a run takes one kind: convert one of them, or train on them in two runs"
    )
    assert caught.value.field == "spec.datasets[1].format"


def test_the_data_set_to_measure_on_is_of_the_same_kind_too(tmp_path):
    chat = source(written(tmp_path / "a.jsonl", CHAT))
    other = source(written(tmp_path / "b.jsonl", PAIR)).model_copy(update={"field": "spec.evalDataset"})
    with pytest.raises(DatasetInvalidError, match=r"^spec\.evalDataset \(PromptCompletion\)"):
        sources.open_all(config(tmp_path, chat, eval_dataset=other.model_dump()))


def test_text_that_is_no_unicode_is_named(tmp_path):
    broken = json.dumps({"messages": [USER, {"role": "assistant", "content": "half \ud800 of it"}]})
    _, bad = rows_of(source(written(tmp_path / "a.jsonl", CHAT, broken)))
    assert (bad.problem.path, bad.line) == ("messages[1].content", 2)
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\nfine\nbr\xffken\n")
    _, bad = rows_of(source(path))
    assert bad.problem.path == "text"


def test_spaces_other_columns_and_the_format_do_not_change_what_a_row_is(tmp_path):
    chat = rows_of(
        source(written(tmp_path / "a.jsonl", json.dumps(CHAT | {"id": 1}, indent=None, separators=(" , ", " : "))))
    )
    turns = [{"from": "human", "value": USER["content"]}, {"from": "gpt", "value": ANSWER["content"]}]
    sharegpt = rows_of(source(written(tmp_path / "b.jsonl", {"conversations": turns})))
    assert chat[0].encoded == sharegpt[0].encoded
