"""What the findings mean for the run: `dataPolicy` decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.finetunejobstatus import DatasetSummary
from largeforge.api.run import RunConfig
from largeforge.jobs.errors import DatasetInvalidError
from largeforge.jobs.examine import Findings

SHOWN_PROBLEMS = 5
LINE_LIMIT = 200
"""Characters of one problem in status; the report has all of it."""
_SHOWN_IN_ERROR = 3


def judge(config: RunConfig, findings: Findings) -> list[str]:
    """Raise a `DatasetInvalidError` where the policy ends the run; return what the user should know otherwise."""
    warnings = [text for text in (_judge_invalid(config, findings), _judge_long(config, findings)) if text]
    _require_rows(config, findings)
    if findings.duplicates:
        warnings.append(f"{findings.duplicates} rows stand in the data more than once")
    if findings.overlap:
        warnings.append(
            f"{findings.overlap} held-out rows are also trained on, so the held-out loss looks better than it is;"
            " remove duplicates"
        )
    return warnings


def _judge_invalid(config: RunConfig, findings: Findings) -> str | None:
    wrong, rows = findings.total("invalid"), findings.total("rows")
    if not wrong:
        return None
    policy = config.data_policy
    text = f"{wrong} of {rows} rows are wrong: {_shown(findings)}"
    if wrong == rows or (policy.mode == "Enforce" and wrong / rows > policy.max_invalid_ratio):
        raise DatasetInvalidError(
            f"{text}; correct them, or allow some with dataPolicy.maxInvalidRatio", field=_field(config, findings)
        )
    return f"{wrong} of {rows} rows are wrong and left out: {findings.problems[0]}"


def _shown(findings: Findings) -> str:
    lines = [cut(str(bad)) for bad in findings.problems[:_SHOWN_IN_ERROR]]
    rest = findings.total("invalid") - len(lines)
    return "; ".join(lines) + (f"; and {rest} more" if rest else "")


def _field(config: RunConfig, findings: Findings) -> str:
    """The data set with the first row that is wrong."""
    found = next((found for found in findings.all if found.invalid), None)
    return found.source.spec.field if found is not None else config.datasets[0].field


def _judge_long(config: RunConfig, findings: Findings) -> str | None:
    long, rows = findings.total("too_long"), findings.total("rows")
    if not long:
        return None
    entry, tokens = findings.too_long[0]
    first = f"{entry.file.uri} line {entry.line} has {tokens}"
    text = f"{long} of {rows} rows have more than {findings.limit} tokens (first: {first})"
    match config.data_policy.on_too_long:
        case "Fail":
            raise DatasetInvalidError(
                f"{text}; raise training.maxLength, shorten them, or set dataPolicy.onTooLong: Truncate",
                field="spec.dataPolicy.onTooLong",
            )
        case "Drop":
            return f"{text} and are left out"
        case _:
            lost = findings.total("unlearnable")
            return f"{text} and are cut" + (f"; of {lost} nothing to learn is left" if lost else "")


def _require_rows(config: RunConfig, findings: Findings) -> None:
    if not int((findings.lengths > 0).sum()):
        raise DatasetInvalidError(
            f"no row is left to train on: {findings.total('invalid')} are wrong, {findings.total('too_long')} are"
            f" longer than {findings.limit} tokens, which leaves nothing to learn; raise training.maxLength",
            field="spec.training.maxLength" if findings.total("too_long") else config.datasets[0].field,
        )
    evaluates = config.eval_dataset is not None or config.eval_split_ratio > 0
    if evaluates and not int((findings.eval_lengths > 0).sum()):
        raise DatasetInvalidError(
            "no row is left to measure the loss on; add rows, raise evalSplitRatio or training.maxLength",
            field="spec.evalDataset" if config.eval_dataset is not None else "spec.evalSplitRatio",
        )


def summary(findings: Findings, *, report: str | None) -> DatasetSummary:
    """The findings for status."""
    kept = int((findings.lengths > 0).sum())
    rows = findings.total("rows") - findings.total("invalid")
    dropped = sum(found.rows - found.kept for found in findings.all) + findings.total("unlearnable")
    # Dropped ones are not cut, and neither are those that lose everything.
    truncated = findings.total("too_long") - (dropped - findings.total("invalid"))
    return DatasetSummary(
        digest=findings.digest,
        samples=kept,
        eval_samples=int((findings.eval_lengths > 0).sum()),
        formats=[found.source.convert.format for found in findings.all],
        invalid=findings.total("invalid"),
        dropped=dropped,
        duplicates=findings.duplicates,
        empty_completions=findings.total("empty_answers"),
        overlap=findings.overlap,
        tokens=int(findings.lengths.sum()),
        longest=max((found.longest for found in findings.all), default=0),
        truncated_ratio=f"{truncated / rows:.4g}" if rows else "0",
        problems=lines(findings),
        report=report,
    )


def lines(findings: Findings) -> list[str]:
    """The first problems, as status shows them."""
    return [cut(str(bad)) for bad in findings.problems[:SHOWN_PROBLEMS]]


def cut(text: str, limit: int = LINE_LIMIT) -> str:
    """*text*, at most *limit* characters of it."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shortened(texts: Sequence[str]) -> list[str]:
    """Warnings as a `RunResult` takes them."""
    return [cut(text, 256) for text in texts[:8]]
