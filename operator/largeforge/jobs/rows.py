"""The rows to train on, ready for TRL: read, checked, split and weighted, in Arrow files that are mapped into memory.

The same rows come out in preflight, on every rank and in every attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tempfile
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs import basemodel, hub, report, sources, store
from largeforge.jobs.errors import DatasetInvalidError
from largeforge.jobs.formats import Format, Kind
from largeforge.jobs.sources import Good, Source
from largeforge.jobs.tokens import Counted, Encoder, counted

EVAL_SPLIT = "spec.evalSplitRatio"
_MARKER = "rows.json"
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Prepared:
    """What TRL gets."""

    train: Any
    """A `datasets.Dataset` with TRL's columns alone (`messages`, or `prompt` and `completion`, or `text`), not
    shuffled; weights are applied, and what is wrong or held out is not among it."""
    eval: Any | None
    """The held-out rows, or None."""
    digest: str
    """SHA-256 over the rows that are right, those to measure on last."""
    kind: Kind
    formats: list[Format]
    """The format of each data set in order, that of `evalDataset` last."""
    invalid: int
    """Rows that are wrong."""
    dropped: int
    """Rows left out: those that are wrong, and with `dataPolicy.onTooLong: Drop` those that are too long."""

    @property
    def conversational(self) -> bool:
        """Whether rows go through the chat template."""
        return "messages" in self.kind


@dataclass(frozen=True, slots=True)
class Stored:
    """What the converting rank tells the others."""

    digest: str
    kind: Kind
    formats: list[Format]
    invalid: int
    dropped: int
    counts: list[int]
    """Rows of each data set to train on."""
    held_out: int
    """Rows of `evalDataset`."""


def load(config: RunConfig, tokenizer: Any, *, environment: Mapping[str, str] = os.environ) -> Prepared:
    """The rows of the run; a `RunError` where none are left.

    The first rank of a node converts them into Arrow files in the launcher's folder, the others wait for it; where it
    fails, torchrun ends them.
    """
    folder = Path(environment.get(report.STATE_DIR) or tempfile.mkdtemp(prefix="largeforge-rows-")) / "rows"
    if int(environment.get("LOCAL_RANK", "0")) == 0:
        stored = convert(config, tokenizer, folder)
        aside = folder / f".{_MARKER}"
        aside.write_text(json.dumps(asdict(stored)))
        aside.rename(folder / _MARKER)
    else:
        while not (folder / _MARKER).exists():
            time.sleep(_POLL_SECONDS)
        stored = Stored(**json.loads((folder / _MARKER).read_bytes()))
    return _open(config, stored, folder)


def limit(config: RunConfig) -> int:
    """The longest sample in tokens: `maxLength`, or the positions of the base where it has fewer."""
    return min(config.training.max_length, basemodel.positions(hub.model_folder(config)))


def convert(config: RunConfig, tokenizer: Any, folder: Path) -> Stored:
    """Write the rows of *config* into *folder* as Arrow files."""
    folder.mkdir(parents=True, exist_ok=True)
    opened, held_out = sources.open_all(config)
    kind = opened[0].kind
    encoder = Encoder(tokenizer, kind, assistant_only=config.training.assistant_only_loss)
    longest = limit(config) if config.data_policy.on_too_long == "Drop" else None
    sha = hashlib.sha256()
    invalid = dropped = 0
    counts = []
    for index, source in enumerate([*opened, *([held_out] if held_out is not None else [])]):
        with store.writer(folder / f"{index}.arrow", kind) as write:
            kept = 0
            for entry, tokens in examined(source, encoder, measure=longest is not None):
                if not isinstance(entry, Good):
                    invalid += 1
                    continue
                sha.update(entry.encoded + b"\n")
                if longest is not None and tokens > longest:
                    dropped += 1
                    continue
                write(entry.row)
                kept += 1
            counts.append(kept)
    return Stored(
        digest=sha.hexdigest(),
        kind=kind,
        formats=[source.convert.format for source in opened] + ([held_out.convert.format] if held_out else []),
        invalid=invalid,
        dropped=invalid + dropped,
        counts=counts[: len(opened)],
        held_out=counts[-1] if held_out is not None else 0,
    )


def examined(source: Source, encoder: Encoder, *, measure: bool) -> Iterator[Counted]:
    """All rows of *source* through the chat template and, with *measure*, the tokenizer."""
    return counted(sources.rows(source), encoder, measure=measure)


def _open(config: RunConfig, stored: Stored, folder: Path) -> Prepared:
    from datasets import Dataset, concatenate_datasets

    parts = [Dataset.from_file(str(folder / f"{index}.arrow")) for index, count in enumerate(stored.counts) if count]
    weights = [source.weight for source in config.datasets]
    seed = config.training.seed
    chosen, held = plan(stored.counts, weights, ratio=config.eval_split_ratio, seed=seed)
    if not parts or not chosen:
        raise DatasetInvalidError(
            f"no row is left to train on ({stored.invalid} are wrong, {stored.dropped - stored.invalid} too long);"
            " see the preflight report",
            field="spec.datasets",
        )
    whole = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    held_out = whole.select(held) if held else None
    if stored.held_out:
        held_out = Dataset.from_file(str(folder / f"{len(stored.counts)}.arrow"))
    return Prepared(
        train=whole.select(chosen),
        eval=held_out,
        digest=stored.digest,
        kind=stored.kind,
        formats=stored.formats,
        invalid=stored.invalid,
        dropped=stored.dropped,
    )


def plan(counts: Sequence[int], weights: Sequence[float], *, ratio: float, seed: int) -> tuple[array[int], list[int]]:
    """The rows to train on and those held out, as indices into all rows; the same seed gives the same.

    Rows are held out before weights are applied, so that no copy of a held-out row is trained on. A ratio above 0 holds
    out at least one row, and at least one is left to train on. Weight 2 takes every row twice, 0.5 half of them.
    """
    held = split(sum(counts), ratio=ratio, seed=seed)
    aside = set(held)
    chosen: array[int] = array("q")
    begin = 0
    for index, (count, weight) in enumerate(zip(counts, weights, strict=True)):
        mine = (
            array("q", (i for i in range(begin, begin + count) if i not in aside))
            if aside
            else range(begin, begin + count)
        )
        for _ in range(int(weight)):
            chosen.extend(mine)
        extra = round((weight - int(weight)) * len(mine))
        if extra:
            picked = random.Random(f"{seed}:{index}").sample(range(len(mine)), extra)  # noqa: S311 - no secret
            chosen.extend(mine[i] for i in sorted(picked))
        begin += count
    return chosen, held


def split(count: int, *, ratio: float, seed: int) -> list[int]:
    """The indices of the rows that are held out, ascending."""
    if ratio <= 0:
        return []
    held_out = min(max(1, round(count * ratio)), count - 1)
    if held_out < 1:
        raise DatasetInvalidError(
            f"{EVAL_SPLIT} holds out a row, but there is only one in all; add rows or set evalSplitRatio: 0",
            field=EVAL_SPLIT,
        )
    return sorted(random.Random(seed).sample(range(count), held_out))  # noqa: S311 - a split, not a secret
