"""All rows of a run, looked at before a GPU is taken: what is wrong, too long, said twice, or held out and trained on.

Of each row a few bytes are kept (a hash, a length), so that memory does not grow with the text.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from largeforge.api.run import RunConfig
from largeforge.jobs import rows
from largeforge.jobs.formats import Row
from largeforge.jobs.sources import Bad, Good, Source
from largeforge.jobs.tokens import Counted, Encoder

REPORTED_PROBLEMS = 1000
"""Rows that the report names; the rest is counted."""
_SECONDS_BETWEEN_LINES = 5.0
_PROGRESS_ROWS = 1000
_SAMPLES = 4


@dataclass(slots=True)
class Found:
    """What was found in one data set."""

    source: Source
    rows: int = 0
    invalid: int = 0
    empty_answers: int = 0
    too_long: int = 0
    unlearnable: int = 0
    """Too long rows of which nothing that is learnt is left after the cut."""
    longest: int = 0
    hashes: array[int] = field(default_factory=lambda: array("Q"))
    """Of each row that is kept."""
    lengths: array[int] = field(default_factory=lambda: array("Q"))
    """Its tokens after the cut; 0 where nothing to learn is left."""

    @property
    def kept(self) -> int:
        """Rows that TRL gets."""
        return len(self.hashes)


@dataclass(slots=True)
class Findings:
    """What was found in all of them."""

    digest: str
    limit: int
    """The longest sample in tokens."""
    trained: list[Found]
    held_out: Found | None
    problems: list[Bad]
    """The first that were met."""
    samples: list[Row]
    """A few rows that are right and not too long."""
    too_long: list[tuple[Good, int]]
    """The first rows that are longer than the limit, and their tokens."""
    lengths: Any
    """Of the rows that are trained on, weights applied (numpy)."""
    eval_lengths: Any
    duplicates: int
    overlap: int

    @property
    def all(self) -> list[Found]:
        """All data sets, the one to measure on last."""
        return [*self.trained, *([self.held_out] if self.held_out is not None else [])]

    def total(self, name: str) -> int:
        """The sum of one count over all data sets."""
        return sum(getattr(found, name) for found in self.all)


class Examiner:
    """Reads all data sets of a run once."""

    def __init__(self, config: RunConfig, encoder: Encoder, limit: int, say: Callable[[str], None]) -> None:
        self._config = config
        self._encoder = encoder
        self._limit = limit
        self._say = say
        self._sha = hashlib.sha256()
        self._problems: list[Bad] = []
        self._too_long: list[tuple[Good, int]] = []
        self._samples: list[Row] = []
        self._began = self._said = time.monotonic()
        self._read = 0

    def examine(self, trained: Sequence[Source], held_out: Source | None) -> Findings:
        """Everything about the rows; what the policy says to it is not decided here."""
        found = [self._examine(source) for source in trained]
        measured = self._examine(held_out) if held_out is not None else None
        self._say(f"read {self._read} rows at {self._read / max(1e-3, time.monotonic() - self._began):.0f} a second")
        return self._together(found, measured)

    def _examine(self, source: Source) -> Found:
        found = Found(source)
        for counted in rows.examined(source, self._encoder, measure=True):
            found.rows += 1
            self._progress(source)
            if isinstance(counted.entry, Bad):
                found.invalid += 1
                found.empty_answers += counted.entry.problem.empty_answer
                if len(self._problems) < REPORTED_PROBLEMS:
                    self._problems.append(counted.entry)
            else:
                self._good(found, counted)
        return found

    def _good(self, found: Found, counted: Counted) -> None:
        entry, tokens = counted.entry, counted.tokens
        if not isinstance(entry, Good):
            raise TypeError(entry)
        self._sha.update(entry.encoded + b"\n")
        found.longest = max(found.longest, tokens)
        if tokens > self._limit:
            found.too_long += 1
            if len(self._too_long) < REPORTED_PROBLEMS:
                self._too_long.append((entry, tokens))
            if self._config.data_policy.on_too_long == "Drop":
                return
            tokens = self._after_cut(found, entry)
        elif len(self._samples) < _SAMPLES:
            self._samples.append(entry.row)
        found.hashes.append(int.from_bytes(hashlib.blake2b(entry.encoded, digest_size=8).digest(), "little"))
        found.lengths.append(tokens)

    def _after_cut(self, found: Found, entry: Good) -> int:
        settings = self._config.training
        if settings.packing or self._config.extra_args.get("truncation_mode", "keep_start") != "keep_start":
            return self._limit
        if self._encoder.learns_within(entry.row, self._limit, completion_only=settings.completion_only_loss):
            return self._limit
        found.unlearnable += 1
        return 0

    def _progress(self, source: Source) -> None:
        self._read += 1
        if self._read % _PROGRESS_ROWS:
            return
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(f"reading {source.spec.uri}: {self._read} rows, {self._read / (now - self._began):.0f} a second")

    def _together(self, trained: list[Found], held_out: Found | None) -> Findings:
        import numpy as np

        hashes = _joined([found.hashes for found in trained], np.uint64)
        lengths = _joined([found.lengths for found in trained], np.uint64)
        chosen, held = rows.plan(
            [found.kept for found in trained],
            [found.source.spec.weight for found in trained],
            ratio=self._config.eval_split_ratio,
            seed=self._config.training.seed,
        )
        picked = np.frombuffer(chosen, dtype=np.int64) if len(chosen) else np.empty(0, dtype=np.int64)
        if held_out is not None:
            measured, eval_lengths = _joined([held_out.hashes], np.uint64), _joined([held_out.lengths], np.uint64)
        else:
            aside = np.asarray(held, dtype=np.int64)
            measured, eval_lengths = hashes[aside], lengths[aside]
        return Findings(
            digest=self._sha.hexdigest(),
            limit=self._limit,
            trained=trained,
            held_out=held_out,
            problems=self._problems,
            samples=self._samples,
            too_long=self._too_long,
            lengths=lengths[picked],
            eval_lengths=eval_lengths,
            duplicates=len(hashes) - len(np.unique(hashes)),
            overlap=int(np.isin(measured, hashes[picked]).sum()) if len(measured) else 0,
        )


def _joined(parts: Sequence[array[int]], kind: Any) -> Any:
    import numpy as np

    return np.concatenate([np.frombuffer(part, dtype=kind) if part else np.empty(0, dtype=kind) for part in parts])
