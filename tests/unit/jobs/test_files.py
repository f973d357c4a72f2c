from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from largeforge.jobs import files
from largeforge.jobs.problems import Problem


def entries(path, kind=None, wanted=()):
    return list(files.read(path, kind or path.suffix, wanted))


def problem(text):
    return Problem("", text)


def test_lines_of_jsonl_have_their_numbers_and_blank_ones_are_passed_over(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n{"a": 2}')
    assert entries(path) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"{", "is not JSON; a .jsonl file has one object on each line"),
        (b"[" * 100_000, "is not JSON; a .jsonl file has one object on each line"),
        (b"1" * 10_000, "is not JSON; a .jsonl file has one object on each line"),
        (b"[1]", "must be an object (got list)"),
        (b"null", "must be an object (got null)"),
        (b"4.5", "must be an object (got number)"),
        (b'{"a": "\xff"}', "is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_line_that_is_no_object_is_a_problem_and_the_next_is_read(tmp_path, line, text):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b'\n{"a": 1}\n')
    assert entries(path) == [(1, problem(text)), (2, {"a": 1})]


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_ROW", 1 << 20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "' + b"x" * (3 << 20))
    assert entries(path) == [(1, problem("is longer than 1 MiB; a .jsonl file has one row on each line"))]


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 18])
def test_a_json_list_is_read_element_by_element_with_lines(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(files, "_CHUNK", chunk)
    rows = [{"a": "x" * 50, "n": i} for i in range(20)]
    path = tmp_path / "a.json"
    path.write_text("\n \n" + json.dumps(rows, indent=1))
    read = entries(path)
    assert [row for _, row in read] == rows
    assert [line for line, _ in read][:3] == [4, 8, 12]


def test_a_json_list_that_breaks_off_gives_what_was_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n{"a": 2},\n{"a": ')
    text = "is not JSON, and what comes after it cannot be read; see the file"
    assert entries(path) == [(1, {"a": 1}), (2, {"a": 2}), (3, problem(text))]


def test_elements_that_are_no_objects_are_problems(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": 1}, "x"]')
    assert [entry for _, entry in entries(path)] == [
        problem("must be an object (got number)"),
        {"a": 1},
        problem("must be an object (got text)"),
    ]


def test_a_json_file_may_hold_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert entries(path) == [(1, {"a": 1}), (2, {"a": 2})]


def test_csv_rows_have_the_names_of_the_first_line_and_the_line_where_they_begin(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffprompt,completion\na,"b\nc"\nd,e\n\nf,g\n')
    assert entries(path) == [
        (2, {"prompt": "a", "completion": "b\nc"}),
        (4, {"prompt": "d", "completion": "e"}),
        (6, {"prompt": "f", "completion": "g"}),
    ]


def test_a_csv_row_with_other_fields_is_a_problem(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2,3\n1\n4,5\n")
    assert entries(path) == [
        (2, problem("has 3 fields, but the first line has 2; quote texts with commas")),
        (3, problem("has 1 fields, but the first line has 2; quote texts with commas")),
        (4, {"a": "4", "b": "5"}),
    ]


def test_csv_with_a_broken_quote_goes_on_with_the_next_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"x"y,1\n2,3\n')
    (line, broken), last = entries(path)
    assert (line, broken.text.startswith("is not CSV")) == (2, True)
    assert last == (3, {"a": "2", "b": "3"})


def test_parquet_is_read_with_the_numbers_of_rows_and_only_the_columns_wanted(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["a", None], "image": [b"1", b"2"]}), path)
    assert entries(path, wanted={"text"}) == [(1, {"text": "a"}), (2, {"text": None})]
    assert entries(path, wanted={"prompt"})[0] == (1, {"text": "a", "image": b"1"})


def test_a_parquet_file_that_is_cut_short_is_a_problem(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["a"] * 1000}), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert entries(path) == [(0, problem("is not a whole parquet file (ArrowInvalid); write it again"))]


def test_a_folder_gives_its_data_files_in_order_and_nothing_hidden(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name in ("b.jsonl", "a.CSV", "README.md", ".x.jsonl", "deep/c.parquet", ".cache/d.jsonl"):
        (folder / name).write_text("")
    (tmp_path / "secret.jsonl").write_text("")
    (folder / "leads-out.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "stays.jsonl").symlink_to(folder / "b.jsonl")
    assert files.inside(folder) == ["a.CSV", "b.jsonl", "deep/c.parquet", "stays.jsonl"]


def test_kinds_are_known_by_their_endings():
    assert [files.suffix(name) for name in ("a.jsonl", "a.NDJSON", "a.json", "a.csv", "a.parquet", "a.txt", "a")] == [
        ".jsonl",
        ".jsonl",
        ".json",
        ".csv",
        ".parquet",
        None,
        None,
    ]
