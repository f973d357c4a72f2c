"""The data sets of a run: their files, the format of each, and their rows as TRL takes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from largeforge.api.names import Reason
from largeforge.api.run import RowSource, RunConfig
from largeforge.jobs import files, formats, hub
from largeforge.jobs.errors import DatasetInvalidError, DatasetMissingError, InvalidConfigError, RunError
from largeforge.jobs.formats import Converter, Format, Kind, Row
from largeforge.jobs.problems import Problem, RowError, columns_of, shown

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class File:
    """One file of a data set."""

    path: Path
    uri: str
    """For messages."""
    kind: str
    """See `files.suffix`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A data set whose format is known."""

    spec: RowSource
    files: Sequence[File]
    convert: Converter

    @property
    def kind(self) -> Kind:
        """What its rows become."""
        return self.convert.kind


class Good(NamedTuple):
    """A row that can be trained on."""

    row: Row
    encoded: bytes
    """Canonical JSON: what the digest is made of, and by which rows are compared."""
    file: File
    line: int


class Bad(NamedTuple):
    """A row that cannot."""

    file: File
    line: int
    """The row in parquet; 0 for the whole file."""
    problem: Problem

    def __str__(self) -> str:
        """`pvc://data/train.jsonl line 17: messages[2].role: must be one of …`."""
        word = "row" if self.file.kind == ".parquet" else "line"
        place = f" {word} {self.line}" if self.line else ""
        return f"{self.file.uri}{place}: {self.problem}"


class StorageError(RunError):
    """The storage does not answer as it should, which time may cure."""

    reason = Reason.STORAGE_NOT_READY


def open_all(config: RunConfig) -> tuple[list[Source], Source | None]:
    """The data sets to train on and the one to measure on; a `RunError` says which cannot be read or mixed."""
    sources = [open_source(spec, config.cache_path) for spec in config.datasets]
    held_out = open_source(config.eval_dataset, config.cache_path) if config.eval_dataset is not None else None
    first = sources[0]
    for other in [*sources[1:], *([held_out] if held_out is not None else [])]:
        if other.kind != first.kind:
            raise DatasetInvalidError(
                f"{other.spec.field} ({other.convert.format}) gives {other.kind}, but {first.spec.field}"
                f" ({first.convert.format}) gives {first.kind}; a run takes one kind: convert one of them, or train"
                " on them in two runs",
                field=f"{other.spec.field}.format",
            )
    return sources, held_out


def open_source(spec: RowSource, cache: str | None) -> Source:
    """Find the files of *spec* and its format."""
    found = data_files(spec, cache)
    first = _first_row(spec, found)
    columns = dict(spec.columns)
    chosen = _chosen(spec, first, columns)
    belonging = {name for part in formats.COLUMNS[chosen] for name in part}
    foreign = sorted(set(spec.columns) - belonging)
    if foreign:
        raise InvalidConfigError(
            f"{spec.field}.columns.{foreign[0]} is no column of format {chosen}, which has"
            f" {', '.join(sorted(belonging))}; remove it, or set another format",
            field=f"{spec.field}.columns.{foreign[0]}",
        )
    return Source(spec, found, formats.converter(chosen, first, columns))


def _chosen(spec: RowSource, first: Row, columns: dict[str, str]) -> Format:
    """The format of *spec*; where a column has another format's name, *columns* says so afterwards."""
    there = columns_of([str(name) for name in first])
    for name, column in spec.columns.items():
        if column not in first and name not in formats.COLUMNS["Alpaca"][1]:
            raise DatasetInvalidError(
                f"{spec.uri}: there is no column {shown(column)}; it has {there}",
                field=f"{spec.field}.columns.{name}",
            )
    if spec.format == "Auto":
        found = formats.detect(first, columns)
        if found is None:
            hint = formats.hint(first)
            raise DatasetInvalidError(
                f"{spec.uri}: no known format has its columns ({there}); set format and columns"
                f"{f' ({hint})' if hint else ''}",
                field=f"{spec.field}.format",
            )
        return formats.by_content(found, first, columns)
    needed = [columns.get(name, name) for name in formats.COLUMNS[spec.format][0]]
    missing = [name for name in needed if name not in first]
    if missing:
        hint = formats.mistaken(spec.format, first, columns)
        raise DatasetInvalidError(
            f"{spec.uri}: format {spec.format} needs the column {shown(missing[0])}; it has {there}; "
            + (hint or "set columns, or another format"),
            field=f"{spec.field}.format",
        )
    return spec.format


def data_files(spec: RowSource, cache: str | None) -> list[File]:
    """The files of *spec* in order."""
    if spec.path is None:
        return [File(path, name, kind) for path, name, kind in hub.dataset_files(spec, cache)]
    path = Path(spec.path)
    if path.is_dir():
        found = [File(path / name, f"{spec.uri}/{name}", str(files.suffix(name))) for name in files.inside(path)]
        if not found:
            raise DatasetMissingError(f"{spec.uri}: the folder has no {files.NAMES}; write one there", field=spec.field)
        return found
    if not path.is_file():
        raise DatasetMissingError(
            f"{spec.uri}: there is no such file or folder; write it there, or correct the uri",
            field=f"{spec.field}.uri",
        )
    # The file may be mounted under another name.
    kind = files.suffix(spec.uri)
    if kind is None:
        raise DatasetInvalidError(
            f"{spec.uri}: its name must end in one of {files.NAMES}; rename the file", field=f"{spec.field}.uri"
        )
    return [File(path, spec.uri, kind)]


def _first_row(spec: RowSource, found: Sequence[File]) -> Row:
    """The first row that can be read."""
    problem: Bad | None = None
    for file in found:
        # A file whose first thousand lines are no rows is none of ours; the preflight says so for one of them.
        for line, entry in itertools.islice(_entries(file, spec, ()), 1000):
            if not isinstance(entry, Problem):
                return entry
            problem = problem or Bad(file, line, entry)
    if problem is not None:
        raise DatasetInvalidError(str(problem), field=spec.field)
    raise DatasetInvalidError(f"{spec.uri}: has no rows; write some, or remove it", field=spec.field)


def rows(source: Source) -> Iterator[Good | Bad]:
    """All rows of *source* in order, `maxSamples` at most; those that are wrong too."""
    wanted = _wanted(source)
    read = ((file, line, entry) for file in source.files for line, entry in _entries(file, source.spec, wanted))
    for file, line, entry in itertools.islice(read, source.spec.max_samples):
        if isinstance(entry, Problem):
            yield Bad(file, line, entry)
            continue
        try:
            row = source.convert(entry)
            yield Good(row, encode(row), file, line)
        except RowError as error:
            yield Bad(file, line, error.problem)


def _wanted(source: Source) -> set[str]:
    columns = source.spec.columns
    return (
        {name for part in formats.COLUMNS[source.convert.format] for name in part}
        | set(columns.values())
        | {
            "messages",
            "conversations",
        }
    )


def _entries(file: File, spec: RowSource, wanted: set[str] | tuple[()]) -> Iterator[files.Entry]:
    try:
        yield from files.read(file.path, file.kind, wanted)
    except (FileNotFoundError, PermissionError) as error:
        raise DatasetMissingError(
            f"{file.uri}: cannot be read ({error.strerror}); group 2000 must be able to read the file", field=spec.field
        ) from None
    except OSError as error:
        raise StorageError(
            f"{file.uri}: cannot be read ({error.strerror or type(error).__name__}); see the claim's storage",
            field=spec.field,
        ) from None


def encode(row: Row) -> bytes:
    """Canonical JSON of *row*: spaces and other columns do not matter."""
    try:
        return _ENCODE(row).encode()
    except UnicodeEncodeError:
        raise RowError(_broken(row), "has bytes that are no UTF-8, or half of a surrogate pair; correct it") from None


def _broken(row: Row) -> str:
    """The path of the first text in *row* that is no Unicode."""
    for name, value in row.items():
        for path, text in _texts(name, value):
            try:
                text.encode()
            except UnicodeEncodeError:
                return path
    return ""


def _texts(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for index, message in enumerate(value):
            yield f"{name}[{index}].content", message["content"]
