"""Models and data sets of the hub: which commit a revision is, the files that a run needs, and each refusal told apart.

The cache is the hub's own, so that anybody can read it. What is not weights, configuration, tokenizer or rows is left
there; pickled weights are never asked for. In training nothing is asked of the hub where a cache was given.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.run import ModelSource, RowSource, RunConfig
from largeforge.api.uri import HfUri, parse
from largeforge.jobs import basemodel, hubdata, huberrors, hubhosts
from largeforge.jobs.errors import BaseInvalidError, DatasetInvalidError, RunError
from largeforge.jobs.huberrors import Asked

TRIES = 5
MAX_WAIT_SECONDS = 60.0
"""The longest wait between two tries; a hub that asks for more ends the attempt, and the operator waits."""
_TIMEOUT_SECONDS = 30.0
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_KEPT_FREE = 1 << 30
"""Bytes that a download leaves free."""


@dataclass(frozen=True, slots=True)
class Repository:
    """What is asked of the hub."""

    source: ModelSource | RowSource
    name: str
    kind: str
    """`model` or `dataset`."""
    revision: str
    """The commit where it is known."""
    cache: str | None

    @property
    def asked(self) -> Asked:
        """The same for messages."""
        field = self.source.field
        owner = field.removesuffix(".uri")
        return Asked(self.source.uri, f"{owner}.uri", owner, self.revision, has_token=self.token is not None)

    @property
    def token(self) -> str | None:
        """The hub's token, where the user named a Secret."""
        return os.environ.get(self.source.token_env, "").strip() or None if self.source.token_env else None


def repository(source: ModelSource | RowSource, cache: str | None) -> Repository:
    """The repository that *source* names."""
    uri = parse(source.uri)
    if not isinstance(uri, HfUri):
        raise TypeError(f"{source.uri} is none of the hub's")
    kind = "model" if isinstance(source, ModelSource) else "dataset"
    return Repository(source, uri.repo, kind, source.commit or source.revision or "main", cache)


def prepare() -> None:
    """Set what huggingface_hub reads when it is imported, and watch where its requests go. To be called first."""
    # Its other transport goes past the client whose requests are watched.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    if os.environ.get(hubhosts.ENDPOINT) == "":
        del os.environ[hubhosts.ENDPOINT]  # the client would take it for an address
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import get_session

    session = get_session()
    if hubhosts.watch not in session.event_hooks["request"]:
        session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], hubhosts.watch]}
        session.timeout = _TIMEOUT_SECONDS


def commit_of(repo: Repository) -> str:
    """The commit that the revision is now."""
    api = client(repo)
    found = retried(
        repo,
        lambda: api.repo_info(repo.name, repo_type=repo.kind, revision=repo.revision, timeout=_TIMEOUT_SECONDS),
    )
    return str(found.sha)


def client(repo: Repository) -> Any:
    """The client, with the token of this repository alone."""
    prepare()
    from huggingface_hub import HfApi

    return HfApi(endpoint=hubhosts.endpoint(os.environ), token=repo.token or False)


def model_folder(config: RunConfig) -> Path:
    """The folder of the base: the mounted one, or the snapshot in the cache, downloaded where there is no cache."""
    if config.base.path is not None:
        return Path(config.base.path)
    repo = repository(config.base, config.cache_path)
    if config.cache_path is not None and config.base.commit is not None:
        return cached(repo)
    return fetch_model(repo, say=lambda _: None, trust_remote_code=config.base.trust_remote_code)


def cached(repo: Repository) -> Path:
    """The snapshot folder in the cache, without a question to the hub; it may be mounted read-only."""
    folder = Path(repo.cache or "") / f"{repo.kind}s--{repo.name.replace('/', '--')}" / "snapshots" / repo.revision
    if not folder.is_dir():
        raise RunError(
            f"{repo.source.uri}: commit {repo.revision} is not in the cache any more; the next attempt cannot find it"
            " either: start a new run, or fill the cache again",
            field="spec.cache.uri",
        )
    return folder


def fetch_model(repo: Repository, *, say: Callable[[str], None], trust_remote_code: bool = False) -> Path:
    """Download what a run needs of a model at its commit; return the snapshot's folder."""
    names = {entry.path: entry.size for entry in listing(repo)}
    wanted = [name for name in (*basemodel.TOKENIZER_FILES, "config.json", "generation_config.json") if name in names]
    if trust_remote_code:
        wanted += [name for name in names if name.endswith(".py") and "/" not in name]
    wanted += _weights(repo, names)
    return download(repo, wanted, names, say=say)


def _weights(repo: Repository, names: dict[str, int]) -> list[str]:
    """The safetensors files: those of the index, the only one, or all at the top."""
    if _INDEX in names:
        folder = download(repo, [_INDEX], names, say=lambda _: None)
        try:
            shards = set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BaseInvalidError(
                f"{repo.source.uri}: {_INDEX} is no index of weights; choose another revision", field=repo.asked.field
            ) from None
        missing = sorted(str(name) for name in shards - names.keys())
        if missing:
            raise BaseInvalidError(
                f"{repo.source.uri}: lacks {len(missing)} of its weight files, first {missing[0]}; choose another"
                " revision",
                field=repo.asked.field,
            )
        return [_INDEX, *sorted(shards)]
    if _SINGLE in names:
        return [_SINGLE]
    return sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)


def dataset_files(spec: RowSource, cache: str | None) -> list[tuple[Path, str, str]]:
    """The files of an hf:// data set in order: path, URI for messages, and kind."""
    repo = repository(spec, cache)
    if cache is not None and spec.commit is not None and (names := hubdata.remembered(cache, repo, spec)) is not None:
        folder = cached(repo)
    else:
        folder, names = fetch_dataset(repo, spec, say=lambda _: None)
    return [(folder / name, f"{spec.uri}/{name}", hubdata.kind_of(name)) for name in names]


def fetch_dataset(repo: Repository, spec: RowSource, *, say: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Download the files of one split at its commit; return the snapshot's folder and their names in order."""
    sizes = {entry.path: entry.size for entry in listing(repo)}
    card = [name for name in ("README.md",) if name in sizes]
    readme = download(repo, card, sizes, say=lambda _: None) / "README.md" if card else None
    names = hubdata.files_of_split(spec, repo.revision, sizes, readme)
    if not names:
        raise DatasetInvalidError(
            f"{spec.uri}: has no files of rows; choose another split", field=f"{spec.field}.split"
        )
    folder = download(repo, names, sizes, say=say)
    hubdata.remember(repo, spec, names)
    return folder, names


def listing(repo: Repository) -> Sequence[Any]:
    """The files, each with path and size."""
    api = client(repo)
    from huggingface_hub.hf_api import RepoFile

    def files() -> list[Any]:
        tree = api.list_repo_tree(repo.name, recursive=True, revision=repo.revision, repo_type=repo.kind)
        return [entry for entry in tree if isinstance(entry, RepoFile)]

    entries: list[Any] = retried(repo, files)
    return entries


def download(repo: Repository, names: Sequence[str], sizes: dict[str, int], *, say: Callable[[str], None]) -> Path:
    """Download *names*; what the cache has already is not asked for again."""
    api = client(repo)
    from huggingface_hub import constants, try_to_load_from_cache

    cache = repo.cache or constants.HF_HUB_CACHE
    here = {"repo_type": repo.kind, "revision": repo.revision, "cache_dir": cache}
    missing = [name for name in names if not isinstance(try_to_load_from_cache(repo.name, name, **here), str)]
    size = sum(sizes[name] for name in missing)
    _check_space(repo, size, Path(cache))
    if missing:
        say(f"downloading {repo.source.uri}@{repo.revision[:12]}: {len(missing)} files, {size / 1e6:.1f} MB")
    folder = Path(cache) / f"{repo.kind}s--{repo.name.replace('/', '--')}" / "snapshots" / repo.revision
    for number, name in enumerate(missing, start=1):
        retried(repo, functools.partial(api.hf_hub_download, repo.name, name, **here))
        if sizes[name] > 100_000_000:
            say(f"downloaded {number}/{len(missing)}: {name}")
    return folder


def _check_space(repo: Repository, size: int, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size and size + _KEPT_FREE > free:
        where = "the cache (spec.cache.uri)" if repo.cache else "the pod's own disk; set spec.cache.uri"
        raise huberrors.CacheFullError(
            f"{repo.source.uri}: {size / 1e9:.1f} GB to download and {_KEPT_FREE / 1e9:.1f} GB to leave free are more"
            f" than the {free / 1e9:.1f} GB that are free in {where}",
            field="spec.cache.uri",
        )


@contextmanager
def _errors(repo: Repository) -> Iterator[None]:
    """Turn what huggingface_hub raises into a `RunError` with a reason."""
    try:
        yield
    except hubhosts.HostRefusedError as error:
        error.field = repo.asked.field
        raise
    except RunError:
        raise
    except Exception as error:
        known = huberrors.told_apart(error, repo.asked)
        if known is None:
            raise
        raise known from None


def retried(repo: Repository, call: Callable[[], Any]) -> Any:
    """The result of *call*; trouble that time may cure is met with a few tries."""
    for left in reversed(range(TRIES)):
        try:
            with _errors(repo):
                return call()
        except huberrors.PassingError as error:
            wait = error.wait_seconds if error.wait_seconds is not None else 2.0 ** (TRIES - left - 1)
            if left == 0 or wait > MAX_WAIT_SECONDS:
                raise
            time.sleep(wait)
    raise AssertionError("unreachable")
