"""The files of a data set, read one row at a time: jsonl, json, csv and parquet. Memory does not grow with the file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePath
from typing import IO, Any

from largeforge.jobs.problems import Problem, kind_of

Row = dict[str, Any]
Entry = tuple[int, Row | Problem]
"""The number of the line (of the row, in parquet), and what stands there."""

MAX_ROW = 64 << 20
"""Bytes of one row. What is longer is no row but another kind of file, and would fill the memory."""
_CHUNK = 1 << 18
_PARQUET_BATCH = 512


def suffix(name: str) -> str | None:
    """What kind of file *name* says that it is, or None."""
    ending = PurePath(name).suffix.lower()
    return _ALIASES.get(ending, ending) if _ALIASES.get(ending, ending) in _READERS else None


def inside(folder: Path) -> list[str]:
    """The names of the data files below *folder*, in order; nothing hidden, and no link that leads out of it."""
    root = folder.resolve()
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or suffix(name) is None:
                continue
            if path.is_file() and path.resolve().is_relative_to(root):
                found.append(str(path.relative_to(folder)))
    return sorted(found)


def read(path: Path, kind: str, wanted: Collection[str] = ()) -> Iterator[Entry]:
    """The rows of *path*, a file of *kind* (see `suffix`).

    Of parquet only the columns in *wanted* are read where it has any of them; an `OSError` is the caller's.
    """
    return _READERS[kind](path, wanted)


def _jsonl(path: Path, _wanted: Collection[str]) -> Iterator[Entry]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_ROW):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) == MAX_ROW and not line.endswith(b"\n"):
                yield number, Problem("", f"is longer than {MAX_ROW >> 20} MiB; a .jsonl file has one row on each line")
                return
            if not line.isspace() and line:
                yield number, parse(line)


def parse(line: bytes) -> Row | Problem:
    """The object in one *line*, or what is wrong with it."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return Problem("", "is not UTF-8; save the file as UTF-8")
    except (ValueError, RecursionError):
        return Problem("", "is not JSON; a .jsonl file has one object on each line")
    return _object(value)


def _object(value: object) -> Row | Problem:
    return value if isinstance(value, dict) else Problem("", f"must be an object (got {kind_of(value)})")


def _json(path: Path, wanted: Collection[str]) -> Iterator[Entry]:
    """A list of objects, or, as many files of this name are, one object on each line."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        start = _until_something(file)
        if start.lstrip().startswith("["):
            yield from _elements(file, start)
            return
    yield from _jsonl(path, wanted)


def _until_something(file: IO[str]) -> str:
    """The beginning of *file* up to a first character that is no space."""
    start = ""
    while not start.strip() and (more := file.read(_CHUNK)):
        start += more
    return start


def _elements(file: IO[str], start: str) -> Iterator[Entry]:
    """The elements of the JSON list that begins with *start*, each with the line on which it begins."""
    decoder = json.JSONDecoder()
    text, ended, size = start, False, _CHUNK
    at = text.index("[") + 1
    line = 1 + text.count("\n", 0, at)
    while True:
        here = _skip(text, at)
        if here < len(text) and text[here] == "]":
            return
        line += text.count("\n", at, here)
        try:
            value, end = decoder.raw_decode(text, here)
        except ValueError:
            end = len(text)
        except RecursionError:
            end, ended = len(text), True
        if end == len(text):  # an element that goes on, or a number that could
            if ended or len(text) - here > MAX_ROW:
                yield line, Problem("", "is not JSON, and what comes after it cannot be read; see the file")
                return
            more = file.read(size)
            text, at, ended = text[here:] + more, 0, not more
            size *= 2  # so that a long element is not tried too often
            continue
        yield line, _object(value)
        line += text.count("\n", here, end)
        at, size = end, _CHUNK


def _skip(text: str, at: int) -> int:
    """The place of the next character that belongs to an element."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _csv(path: Path, _wanted: Collection[str]) -> Iterator[Entry]:
    """Rows under a line of names. Bytes that are no UTF-8 become halves of surrogate pairs, which are found later."""
    csv.field_size_limit(MAX_ROW)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        names = next(reader, None)
        if names is None:
            return
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Problem("", f"is not CSV ({error}); quote texts that hold quotes or line ends")
                continue
            if values:
                yield line, _csv_row(names, values)


def _csv_row(names: list[str], values: list[str]) -> Row | Problem:
    if len(values) != len(names):
        return Problem("", f"has {len(values)} fields, but the first line has {len(names)}; quote texts with commas")
    return dict(zip(names, values, strict=True))


def _parquet(path: Path, wanted: Collection[str]) -> Iterator[Entry]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path, buffer_size=_CHUNK, pre_buffer=False)
        names = file.schema_arrow.names
        columns = [name for name in names if name in wanted] or names
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH, columns=columns, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, UnicodeDecodeError) as error:
        yield 0, Problem("", f"is not a whole parquet file ({type(error).__name__}); write it again")


_ALIASES: Mapping[str, str] = {".ndjson": ".jsonl", ".jsonlines": ".jsonl"}
_READERS: Mapping[str, Callable[[Path, Collection[str]], Iterator[Entry]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
NAMES = ", ".join(_READERS)
"""For messages."""
