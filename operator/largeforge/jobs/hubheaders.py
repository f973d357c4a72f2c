"""A model of the hub, looked at without its weights: their headers stand at the beginning of each file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from largeforge.jobs import hub, weights
from largeforge.jobs.basemodel import TOKENIZER_FILES
from largeforge.jobs.hub import Repository
from largeforge.jobs.modelfacts import INDEX
from largeforge.jobs.tokenizerfacts import VOCABULARIES
from largeforge.jobs.weights import LENGTH_BYTES, MAX_HEADER, Tensor

_FIRST_BYTES = 100_000
"""Most headers are shorter, so that one request does."""
_SMALL = tuple(dict.fromkeys((*TOKENIZER_FILES, *VOCABULARIES, "config.json", "adapter_config.json", INDEX)))


def small_files(repo: Repository) -> tuple[Path, dict[str, int]]:
    """Download all but the weights; the folder, and the sizes of all files at the top of the repository."""
    entries = hub.listing(repo)
    sizes = {entry.path: entry.size for entry in entries if "/" not in entry.path}
    folder = hub.download(repo, [name for name in _SMALL if name in sizes], sizes, say=lambda _: None)
    return folder, sizes


def tensors(repo: Repository, names: Sequence[str], sizes: dict[str, int]) -> list[Tensor]:
    """What is in the weight files *names*; a `HeaderError` names the one that is no whole file."""
    found: list[Tensor] = []
    for name in names:
        try:
            found += _of_file(repo, name, sizes[name])
        except weights.HeaderError as error:
            raise weights.HeaderError(f"{name} {error}") from None
    return found


def _of_file(repo: Repository, name: str, size: int) -> list[Tensor]:
    start = _read(repo, name, min(_FIRST_BYTES, size))
    length = weights.header_length(start, size)
    if LENGTH_BYTES + length > len(start):
        start = _read(repo, name, LENGTH_BYTES + min(length, MAX_HEADER))
    return weights.parsed(start[LENGTH_BYTES : LENGTH_BYTES + length], size=size)


def _read(repo: Repository, name: str, count: int) -> bytes:
    """The first *count* bytes of the file; no more is taken from a mirror that knows no ranges."""
    return bytes(hub.retried(repo, functools.partial(_request, repo, name, count)))


def _request(repo: Repository, name: str, count: int) -> bytes:
    api = hub.client(repo)
    import huggingface_hub

    utils: Any = huggingface_hub.utils  # it does not export to type checkers what it exports
    url = huggingface_hub.hf_hub_url(
        repo.name, name, repo_type=repo.kind, revision=repo.revision, endpoint=api.endpoint
    )
    headers: dict[str, Any] = utils.build_hf_headers(token=repo.token or False)
    # Compressed, the bytes that are counted would be others.
    headers |= {"range": f"bytes=0-{count - 1}", "accept-encoding": "identity"}
    with huggingface_hub.get_session().stream("GET", url, headers=headers) as response:
        utils.hf_raise_for_status(response)
        content = b""
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) >= count:
                break
    return content[:count]
