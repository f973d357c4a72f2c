"""Whether text is fit to calibrate on and to measure on. Pure; every refusal has its figure and the remedy.

A quantization that learnt on too little or on the same again writes a model that loads, answers, and is worse: nothing
later would say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.names import Reason
from largeforge.jobs.calibration import LOOKED_AT, Read
from largeforge.jobs.errors import DatasetInvalidError

CALIBRATION = "spec.calibration"
DATASETS = "spec.calibration.datasets"
GATE = "spec.qualityGate.dataset"

MIN_SAMPLES = 8
MIN_TOKENS = 1024
"""With fewer, most channels of a layer are seen a few times, and their scales are chance."""
MIN_MEASURED = 512
"""Tokens with a log-probability. The mean of fewer moves by more than the 2 % that a gate allows by default."""
MAX_SHARE = 0.5
"""Of the rows: that are wrong, that stand there twice, that are cut."""
MAX_REPEATED = 0.9
"""Of all runs of `RUN` tokens: those that came before. Chats that share a system prompt are below it."""
RUN = 8


class CalibrationInvalidError(DatasetInvalidError):
    """The text is readable, and no good to calibrate on or to measure on."""

    reason = Reason.CALIBRATION_INVALID


@dataclass(frozen=True, slots=True)
class Asked:
    """What the job asks for."""

    samples: int
    length: int
    """Tokens of the longest sample."""


def judge_rows(found: Read, *, field: str) -> list[str]:
    """Raise where the rows are no good; return what the user should know."""
    if found.invalid and found.invalid >= MAX_SHARE * found.rows:
        raise DatasetInvalidError(
            f"{found.invalid} of {found.rows} rows are wrong: {'; '.join(found.problems[:3])}; correct them",
            field=field,
        )
    if found.duplicates > MAX_SHARE * found.rows:
        raise CalibrationInvalidError(
            f"{field}: {found.duplicates} of {found.rows} rows repeat another; give more different text", field=field
        )
    warnings = []
    if found.invalid:
        warnings.append(f"{field}: {found.invalid} of {found.rows} rows are wrong and left out: {found.problems[0]}")
    if found.bounded:
        warnings.append(f"{field}: of each data set the first {LOOKED_AT} rows are looked at")
    return warnings


def judge_samples(lengths: Sequence[int], samples: Sequence[Sequence[int]], asked: Asked) -> None:
    """Raise where the *samples*, whose *lengths* are those before the cut, are too few, too short or the same again."""
    if len(samples) < max(asked.samples, MIN_SAMPLES):
        wanted = (
            f"numSamples asks for {asked.samples}; lower it, or give more rows"
            if asked.samples >= MIN_SAMPLES
            else f"at least {MIN_SAMPLES} are needed; raise numSamples"
        )
        raise CalibrationInvalidError(
            f"{DATASETS}: {len(samples)} different rows, and {wanted}", field=f"{CALIBRATION}.numSamples"
        )
    tokens = sum(len(sample) for sample in samples)
    if tokens < MIN_TOKENS:
        raise CalibrationInvalidError(
            f"{DATASETS}: {len(samples)} samples of {tokens} tokens in all, and at least {MIN_TOKENS} tokens are"
            " needed; raise numSamples, or give longer text",
            field=DATASETS,
        )
    cut = truncated(lengths, asked.length)
    if cut > MAX_SHARE:
        raise CalibrationInvalidError(
            f"{DATASETS}: {cut:.0%} of the samples are longer than maxLength {asked.length} and would be cut; raise"
            " calibration.maxLength, or give shorter rows",
            field=f"{CALIBRATION}.maxLength",
        )
    share = repeated(samples)
    if share > MAX_REPEATED:
        raise CalibrationInvalidError(
            f"{DATASETS}: {share:.0%} of the text repeats what came before ({tokens} tokens); give more different text",
            field=DATASETS,
        )


def judge_windows(found: Sequence[Sequence[int]], *, own: bool) -> None:
    """Raise where the held-out windows have too few tokens; *own*: they come from a data set of the gate's own."""
    measured = sum(len(window) - 1 for window in found)
    if measured >= MIN_MEASURED:
        return
    if own:
        raise CalibrationInvalidError(
            f"{GATE}: {measured} tokens to measure the perplexity on, and at least {MIN_MEASURED} are needed; give"
            " more text",
            field=GATE,
        )
    raise CalibrationInvalidError(
        f"{DATASETS}: beside the samples {measured} tokens are left to measure the perplexity on, and at least"
        f" {MIN_MEASURED} are needed; give more rows, lower calibration.numSamples, or set qualityGate.dataset",
        field=GATE,
    )


def truncated(lengths: Sequence[int], limit: int) -> float:
    """The share of samples that are longer than *limit*."""
    return sum(length > limit for length in lengths) / len(lengths) if lengths else 0.0


def repeated(samples: Sequence[Sequence[int]]) -> float:
    """The share of the runs of `RUN` tokens that came before, in the same sample or in another."""
    runs = [tuple(sample[begin : begin + RUN]) for sample in samples for begin in range(max(0, len(sample) - RUN + 1))]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
