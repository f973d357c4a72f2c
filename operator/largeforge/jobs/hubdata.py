"""Which files of a repository are the rows of a split: the rules of `datasets`, tried on the names alone.

`datasets` knows where splits lie (folders, names, the card's own list). It is shown a folder with the names of the
repository and nothing in them, so that only the files of one split are downloaded and no code of a repository is run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from largeforge.api.names import ExitCode, Reason
from largeforge.api.run import RowSource
from largeforge.jobs import files
from largeforge.jobs.errors import DatasetInvalidError, RunError

if TYPE_CHECKING:
    from largeforge.jobs.hub import Repository

DEFAULT_SPLIT = "train"
_FOLDER = "largeforge"
"""Where the names are remembered, in the cache beside the hub's own folders."""
_SHOWN = 8


class SplitNotFoundError(RunError):
    """The data set has no such configuration or split."""

    reason = Reason.HUB_NOT_FOUND
    exit_code = ExitCode.INVALID_CONFIG


def kind_of(name: str) -> str:
    """The kind of the file *name*; see `files.suffix`."""
    return str(files.suffix(name))


def files_of_split(spec: RowSource, commit: str, names: Iterable[str], readme: Path | None) -> list[str]:
    """The names of the files of *spec*'s split, in order."""
    splits = _splits(spec, names, readme)
    split = spec.split or DEFAULT_SPLIT
    if split not in splits:
        raise SplitNotFoundError(
            f"{spec.uri}@{commit[:12]}: has no split {split!r}; it has {_some(splits)}: set {spec.field}.split",
            field=f"{spec.field}.split",
        )
    foreign = [name for name in splits[split] if files.suffix(name) is None]
    if foreign:
        raise DatasetInvalidError(
            f"{spec.uri}@{commit[:12]}: {foreign[0][:100]} is none of {files.NAMES}; choose another configuration or"
            " revision (many have parquet files)",
            field=f"{spec.field}.uri",
        )
    return splits[split]


def _splits(spec: RowSource, names: Iterable[str], readme: Path | None) -> dict[str, list[str]]:
    """The names of the files of each split."""
    import datasets

    with tempfile.TemporaryDirectory(prefix="largeforge-names-") as folder:
        root = Path(folder).resolve()
        for name in names:
            path = root / name
            if not path.resolve().is_relative_to(root):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        if readme is not None:
            shutil.copyfile(readme, root / "README.md")
        try:
            builder = datasets.load_dataset_builder(str(root), name=spec.config)
        except Exception as error:  # noqa: BLE001 - a foreign repository makes it raise what it likes
            raise _refused(spec, error) from None
        found: dict[str, Any] = builder.config.data_files or {}
        return {str(split): [str(Path(path).relative_to(root)) for path in paths] for split, paths in found.items()}


def _refused(spec: RowSource, error: Exception) -> RunError:
    """Why `datasets` finds no rows; its texts speak of a folder that the user has never seen."""
    text = str(error)
    if "BuilderConfig" in text or "Config name is missing" in text:
        names = text[text.find("[") : text.find("]") + 1].replace("'", "") if "[" in text else ""
        which = f"has no configuration {spec.config!r}" if spec.config else "has several configurations"
        return SplitNotFoundError(
            f"{spec.uri}: {which}; set {spec.field}.config to one of {names[:300]}", field=f"{spec.field}.config"
        )
    return DatasetInvalidError(
        f"{spec.uri}: no rows are found in the repository ({type(error).__name__}); it needs {files.NAMES} files in the"
        " hub's own layout, and loading scripts are never run",
        field=f"{spec.field}.uri",
    )


def _some(splits: Iterable[str]) -> str:
    names = sorted(splits)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def remember(repo: Repository, spec: RowSource, names: list[str]) -> None:
    """Write down the *names* for those who read the cache without asking the hub."""
    if repo.cache is None:
        return
    path = _note(repo.cache, repo, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(names))
    aside.replace(path)


def remembered(cache: str, repo: Repository, spec: RowSource) -> list[str] | None:
    """The names that `remember` wrote, or None."""
    try:
        return [str(name) for name in json.loads(_note(cache, repo, spec).read_bytes())]
    except FileNotFoundError:
        return None


def _note(cache: str, repo: Repository, spec: RowSource) -> Path:
    name = f"{spec.config or '-'}@{spec.split or DEFAULT_SPLIT}.json"
    return Path(cache) / _FOLDER / f"datasets--{repo.name.replace('/', '--')}" / repo.revision / name
