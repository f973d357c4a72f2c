"""Preflight of a QuantizeJob: everything that can be found wrong before a GPU is taken, and what the steps begin with.

It downloads what comes from the hub, looks at the source, checks each method against its layers, merges an adapter, and
writes the tokens to calibrate on and to measure on.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.quantize import PreparedRecord, QuantizeConfig, QuantizeResult
from largeforge.api.quantizejob import CALIBRATED
from largeforge.api.quantizejobstatus import CalibrationRecord, SourceRecord
from largeforge.api.run import ModelSource, RowSource
from largeforge.jobs import (
    artifact,
    basemodel,
    calibration,
    calibrationpolicy,
    container,
    hub,
    models,
    policy,
    prepared,
    quantizemerge,
    quantizescheme,
    quantizing,
    weights,
)
from largeforge.jobs.basemodel import BaseModel
from largeforge.jobs.calibrationpolicy import DATASETS, GATE, Asked
from largeforge.jobs.errors import BaseInvalidError, RunError
from largeforge.jobs.models import Base
from largeforge.jobs.quantizestep import say
from largeforge.jobs.room import NotWritableError


@dataclass(frozen=True, slots=True)
class Tokens:
    """The chosen text."""

    samples: list[list[int]]
    windows: list[list[int]]
    record: CalibrationRecord | None
    warnings: list[str]


def check(config: QuantizeConfig) -> QuantizeResult:
    """All checks in order of their cost; a `RunError` ends them."""
    _prepare(config)
    config = _resolve(config)
    source = config.source
    folder = source_folder(config)
    found = inspect(folder, source)
    base = Base(folder, source.uri, source.field, trusted(source))
    skeleton = quantizescheme.skeleton(base)
    for method in config.methods:
        shape = quantizescheme.shape(skeleton, method.ignore)
        quantizescheme.check_groups(method, shape.layers)
        quantizescheme.check_library(method)
    say(f"{shape.parameters:,} parameters, {len(shape.layers)} layers to quantize in {shape.blocks} blocks")
    tokenizer = models.load_tokenizer(base)
    tokens = choose(config, tokenizer, require_template=lambda: basemodel.require_chat_template(found, source))
    record, warnings = _source(config, found, base, tokens)
    return QuantizeResult(
        outcome="Succeeded",
        stage="Preflight",
        run_digest=config.digest,
        warnings=policy.shortened([*tokens.warnings, *warnings]),
        prepared=_write(config, tokens, record),
    )


def _prepare(config: QuantizeConfig) -> None:
    """Set what libraries read when they are imported, and look whether the output takes files."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(container.available()))
    os.environ.setdefault("OMP_NUM_THREADS", str(container.available()))
    hub.prepare()
    quantizing.quiet_libraries()
    if not os.access(config.output_path, os.W_OK | os.X_OK):
        raise NotWritableError(
            f"{config.output_uri}: cannot be written; the folder must belong to group 2000 or be open to it, and the"
            " claim must not be read-only",
            field="spec.output.uri",
        )


def _resolve(config: QuantizeConfig) -> QuantizeConfig:
    """Find the commits and download; return the configuration with the commits in it."""
    source, chosen = config.source, config.calibration
    if source.path is None:
        repo = hub.repository(source, config.cache_path)
        source = source.model_copy(update={"commit": source.commit or hub.commit_of(repo)})
        hub.fetch_model(hub.repository(source, config.cache_path), say=say, trust_remote_code=source.trust_remote_code)
    rows = [_fetched(spec, config.cache_path) for spec in chosen.datasets]
    held_out = config.evaluation.dataset
    return config.model_copy(
        update={
            "source": source,
            "calibration": chosen.model_copy(update={"datasets": rows}),
            "evaluation": config.evaluation.model_copy(
                update={"dataset": held_out and _fetched(held_out, config.cache_path)}
            ),
        }
    )


def _fetched(spec: RowSource, cache: str | None) -> RowSource:
    """*spec* at its commit, downloaded."""
    if spec.path is not None:
        return spec
    pinned = spec.model_copy(update={"commit": spec.commit or hub.commit_of(hub.repository(spec, cache))})
    hub.fetch_dataset(hub.repository(pinned, cache), pinned, say=say)
    return pinned


def source_folder(config: QuantizeConfig) -> Path:
    """The folder of the source: the mounted one, or the snapshot that was just downloaded."""
    source = config.source
    if source.path is not None:
        return Path(source.path)
    repo = hub.repository(source, config.cache_path)
    return hub.fetch_model(repo, say=lambda _: None, trust_remote_code=source.trust_remote_code)


def trusted(source: ModelSource) -> dict[str, Any]:
    """Keyword arguments of every `from_pretrained`."""
    return {"local_files_only": True, "trust_remote_code": source.trust_remote_code}


def inspect(folder: Path, source: ModelSource) -> BaseModel:
    """The source in *folder*; a `BaseInvalidError` says why it cannot be quantized."""
    found = basemodel.inspect(folder, source)
    if "quantization_config" in found.config:
        raise BaseInvalidError(
            f"{source.uri}: is quantized already; name the model that it was made from", field=source.field
        )
    return found


def choose(config: QuantizeConfig, tokenizer: Any, *, require_template: Callable[[], None]) -> Tokens:
    """The samples to calibrate on and the windows to measure on."""
    chosen, measured = config.calibration, config.evaluation
    needed = chosen.num_samples if any(method.method in CALIBRATED for method in config.methods) else 0
    own = measured.dataset
    take = needed + (0 if own is not None else measured.max_windows)

    def read(specs: Sequence[RowSource], count: int, field: str) -> tuple[calibration.Read, list[str]]:
        choice = calibration.Choice(count, chosen.seed, chosen.apply_chat_template, require_template)
        found = calibration.read(specs, tokenizer, choice, cache=config.cache_path)
        return found, calibrationpolicy.judge_rows(found, field=field)

    found, warnings = read(chosen.datasets, take, DATASETS) if chosen.datasets and take else (calibration.Read(), [])
    record, samples = None, []
    if needed:
        whole = list(calibration.tokenized(found.texts[:needed], tokenizer))
        samples = [ids[: chosen.max_length] for ids in whole if ids]
        lengths = [len(ids) for ids in whole]
        calibrationpolicy.judge_samples(lengths, samples, Asked(chosen.num_samples, chosen.max_length))
        record = _record(found, lengths, samples, chosen.max_length)
        say(f"calibration: {record.samples} samples, {record.tokens} tokens")
    held_out = found.texts[needed:]
    if own is not None:
        other, more = read([own], measured.max_windows, GATE)
        warnings += more
        held_out = other.texts
        shared = len(set(other.texts) & set(found.texts[:needed]))
        if shared:
            warnings.append(f"{GATE}: {shared} rows are calibrated on too, so the loss looks smaller than it is")
    windows = calibration.windows(
        calibration.tokenized(held_out, tokenizer), length=measured.window_tokens, limit=measured.max_windows
    )
    calibrationpolicy.judge_windows(windows, own=own is not None)
    say(f"held out: {len(windows)} windows, {sum(len(window) for window in windows)} tokens")
    return Tokens(samples, windows, record, warnings)


def _record(
    found: calibration.Read, lengths: Sequence[int], samples: Sequence[Sequence[int]], limit: int
) -> CalibrationRecord:
    return CalibrationRecord(
        digest=prepared.digest(samples),
        samples=len(samples),
        tokens=sum(len(sample) for sample in samples),
        truncated_ratio=f"{calibrationpolicy.truncated(lengths, limit):.4g}",
        duplicates=found.duplicates,
        invalid=found.invalid,
        problems=found.problems,
    )


def _source(config: QuantizeConfig, found: BaseModel, base: Base, tokens: Tokens) -> tuple[SourceRecord, list[str]]:
    """The model as the methods get it, merged where there is an adapter; and what to know about that."""
    digest = config.source.commit or config.source.digest or _digest(found)
    if config.adapter is not None:
        return quantizemerge.merged(config, base, base_digest=digest, windows=tokens.windows)
    return (
        SourceRecord(
            uri=config.source.uri,
            commit=config.source.commit,
            digest=digest,
            size_bytes=found.size,
            architecture=quantizemerge.architecture(found.config),
            dtype=quantizemerge.dtype(found.config),
        ),
        [],
    )


def _digest(found: BaseModel) -> str:
    say(f"reading the source's weights: {found.size / 1e9:.1f} GB")
    return weights.digest(found.weights)


def _write(config: QuantizeConfig, tokens: Tokens, source: SourceRecord) -> PreparedRecord:
    """Write the tokens, unless an earlier preflight has."""
    windows = prepared.digest(tokens.windows)
    samples = tokens.record.digest if tokens.record is not None else None
    name = f"{artifact.named(config.job, windows, samples or '')}-tokens"
    target = Path(config.output_path) / name
    if not prepared.is_whole(target, windows=windows, samples=samples):

        def fill(folder: Path) -> None:
            prepared.write(folder, windows=tokens.windows, samples=tokens.samples if tokens.record else None)

        artifact.clear_leftovers(target)
        artifact.place(target, fill, attempt=secrets.token_hex(4))
    if not prepared.is_whole(target, windows=windows, samples=samples):
        raise RunError(f"{config.output_uri}/{name}: was written, and is not what was written; see the claim's storage")
    return PreparedRecord(
        source=source,
        calibration=tokens.record,
        windows=len(tokens.windows),
        window_tokens=sum(len(window) for window in tokens.windows),
        windows_digest=windows,
        uri=f"{config.output_uri}/{name}",
    )
