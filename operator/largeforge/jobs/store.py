"""Rows as Arrow files, which `datasets` maps into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from largeforge.jobs.formats import Kind, Row

_BATCH = 512


@contextmanager
def writer(path: Path, kind: Kind) -> Iterator[Callable[[Row], None]]:
    """What writes rows of *kind* into *path*, a few at a time; the file is whole when the context ends."""
    import pyarrow as pa

    schema = _schema(kind)
    pending: list[Row] = []
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:

        def flush() -> None:
            stream.write_batch(pa.RecordBatch.from_pylist(pending, schema=schema))
            pending.clear()

        def write(row: Row) -> None:
            pending.append(row)
            if len(pending) == _BATCH:
                flush()

        yield write
        if pending:
            flush()


def _schema(kind: Kind) -> Any:
    import pyarrow as pa

    text, turns = pa.string(), pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    columns: dict[Kind, dict[str, Any]] = {
        "messages": {"messages": turns},
        "prompt and completion as messages": {"prompt": turns, "completion": turns},
        "prompt and completion as text": {"prompt": text, "completion": text},
        "text": {"text": text},
    }
    return pa.schema(columns[kind])
