"""Training data: where it lies, how it is read, and what is done about rows that are wrong."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from largeforge.api.common import SecretRef
from largeforge.api.model import Model, rules
from largeforge.api.uri import DatasetUriText, Revision

DatasetFormat = Literal["Auto", "Messages", "PromptCompletion", "Text", "Alpaca", "ShareGPT"]
ColumnName = Annotated[str, Field(min_length=1, max_length=128)]


class Columns(Model):
    """Which column of the files holds what, where their names are not those of the format."""

    messages: ColumnName | None = None
    """A list of `{role, content}` (format Messages)."""
    prompt: ColumnName | None = None
    """The prompt: text, or a list of messages (format PromptCompletion)."""
    completion: ColumnName | None = None
    """The completion: text, or a list of messages (format PromptCompletion)."""
    text: ColumnName | None = None
    """The whole text (format Text)."""
    instruction: ColumnName | None = None
    """The task (format Alpaca)."""
    input: ColumnName | None = None
    """What the task is about; may be empty (format Alpaca)."""
    output: ColumnName | None = None
    """The answer (format Alpaca)."""
    system: ColumnName | None = None
    """The system message (formats Alpaca and ShareGPT)."""
    conversations: ColumnName | None = None
    """A list of `{from, value}` (format ShareGPT)."""


_HUB_ONLY = (
    "self.uri.startsWith('hf://') || !(has(self.revision) || has(self.config) || has(self.split)"
    " || has(self.secretRef))",
    "revision, config, split and secretRef belong to an hf:// data set; remove them",
)
_OWN_COLUMNS = (
    "self.format == 'Auto' || ((self.format == 'Messages' || !has(self.columns.messages))"
    " && (self.format == 'PromptCompletion' || !(has(self.columns.prompt) || has(self.columns.completion)))"
    " && (self.format == 'Text' || !has(self.columns.text))"
    " && (self.format == 'ShareGPT' || !has(self.columns.conversations))"
    " && (self.format in ['ShareGPT', 'Alpaca'] || !has(self.columns.system))"
    " && (self.format == 'Alpaca' || !(has(self.columns.instruction) || has(self.columns.input)"
    " || has(self.columns.output))))",
    "columns names columns of another format; remove them, or set format to theirs",
)


class DatasetSource(Model):
    """Rows to read."""

    model_config = rules(_HUB_ONLY, _OWN_COLUMNS)

    uri: DatasetUriText
    """`hf://org/name`, `pvc://claim/path` of a file or a folder of files, or `configmap://name/key`; files are jsonl,
    json, csv or parquet."""
    revision: Revision | None = None
    """Branch, tag or commit of an hf:// data set; by default its main branch. Status shows the commit."""
    config: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")] | None = None
    """The configuration (subset) of an hf:// data set; by default its only one."""
    split: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")] | None = None
    """The split of an hf:// data set; by default train."""
    format: DatasetFormat = "Auto"
    """Messages, PromptCompletion, Text, Alpaca or ShareGPT; Auto finds it by the columns of the first row."""
    columns: Columns = Columns()
    """Which column holds what, where the names are not those of the format."""
    max_samples: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """At most so many rows, the first ones."""
    secret_ref: SecretRef | None = None
    """The Secret with the hub's token, for a private or gated data set."""


class TrainDataset(DatasetSource):
    """One source of training data."""

    model_config = rules(
        _HUB_ONLY,
        _OWN_COLUMNS,
        ("!has(self.weight) || self.weight > 0.0", "weight must be above 0, for example 0.5 or 2"),
    )

    weight: Annotated[float, Field(ge=0, le=100)] | None = None
    """How often each row is taken: 2 takes each twice, 0.5 every second one, chosen with the seed; by default 1."""


class DataPolicy(Model):
    """What is done about rows that are wrong or too long."""

    mode: Literal["Enforce", "Warn"] = "Enforce"
    """Enforce ends the run, before a GPU is taken, when more than maxInvalidRatio of the rows are wrong; Warn says so
    and goes on. Rows that are wrong are never trained on."""
    max_invalid_ratio: Annotated[float, Field(ge=0, le=1)] = 0
    """The share of the rows that may be wrong."""
    on_too_long: Literal["Truncate", "Drop", "Fail"] = "Truncate"
    """What becomes of a row longer than training.maxLength: cut at its end, left out, or the end of the run."""
