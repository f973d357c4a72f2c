"""One method of a QuantizeJob: found whole, or worked and written. Torch is imported inside."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import ArtifactRecord
from largeforge.api.names import Reason
from largeforge.api.quantize import MethodSettings, QuantizeConfig, QuantizeResult
from largeforge.api.quantizejob import CALIBRATED
from largeforge.api.run import RESULT_FILE
from largeforge.jobs import (
    artifact,
    container,
    policy,
    prepared,
    quantizeautoawq,
    quantizecard,
    quantizememory,
    quantizescheme,
    quantizing,
    room,
    weights,
)
from largeforge.jobs.errors import InvalidConfigError, RunError
from largeforge.jobs.models import Base
from largeforge.jobs.progress import Progress, block_line
from largeforge.jobs.quantizestep import say
from largeforge.jobs.quantizing import Work
from largeforge.jobs.reporter import Reporter, Snapshot


def run(config: QuantizeConfig) -> QuantizeResult:
    """The result of the method: of what an earlier attempt has left whole, or of the work."""
    (settings,) = config.methods
    samples: list[list[int]] = []
    if settings.method in CALIBRATED:
        if config.prepared_path is None or config.prepared_digest is None:
            raise InvalidConfigError(f"{settings.method} needs calibration tokens", field=settings.field)
        samples = prepared.read_samples(Path(config.prepared_path), expected=config.prepared_digest)
    target = Path(config.output_path) / folder_of(config, settings)
    found = find_whole(target)
    if found is not None:
        return found.model_copy(update={"run_digest": config.digest, "adopted": True})
    for name in artifact.clear_leftovers(target):
        say(f"cleared {name}")
    return _work(config, settings, samples, target)


def folder_of(config: QuantizeConfig, settings: MethodSettings) -> str:
    """The name of the folder that the method's result has: another method, source or text is another one."""
    return artifact.folder_name(
        config.job,
        run_digest=settings.digest,
        data_digest=config.prepared_digest or "" if settings.method in CALIBRATED else "",
        base_digest=config.source.commit or config.source.digest or "",
    )


def find_whole(target: Path) -> QuantizeResult | None:
    """The result of an earlier attempt whose model in *target* is whole, else None."""
    try:
        result = QuantizeResult.model_validate_json((target / RESULT_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if result.outcome != "Succeeded" or result.artifact is None:
        return None
    if weights.digest(weights.safetensors_files(target)) != result.artifact.digest:
        return None
    return result


def _work(config: QuantizeConfig, settings: MethodSettings, samples: list[list[int]], target: Path) -> QuantizeResult:
    os.environ.setdefault("OMP_NUM_THREADS", str(container.available()))
    quantizing.quiet_libraries()
    source = config.source
    trusted = {"local_files_only": True, "trust_remote_code": source.trust_remote_code}
    base = Base(Path(source.path or ""), source.uri, source.field, trusted)
    quantizing.check_library(settings)
    check_device(config)
    _check_room(config, settings, samples, base)
    reporter = Reporter.from_environment(os.environ)
    work = Work(base, settings, samples, seed=config.calibration.seed, use_cpu=config.use_cpu)
    results: list[QuantizeResult] = []

    def fill(folder: Path) -> None:
        done = quantizing.quantize(work, folder, teller(reporter))
        quantizing.check_written(folder)
        results.append(_result(config, settings, folder, target, done))
        text = results[0].model_dump_json(by_alias=True, exclude_none=True, indent=2)
        (folder / RESULT_FILE).write_text(text + "\n")

    try:
        made = artifact.place(target, fill, attempt=secrets.token_hex(4))
    finally:
        reporter.close()
    if made:
        return results[0]
    found = find_whole(target)
    if found is None:
        raise RunError(f"{target.name}: another attempt has written there, and it is not whole; see the claim")
    return found.model_copy(update={"run_digest": config.digest, "adopted": True})


def check_device(config: QuantizeConfig) -> None:
    """Raise where a GPU is wanted and none is visible; the libraries would go on on the CPU, and say so in a log."""
    import torch

    if not config.use_cpu and not torch.cuda.is_available():
        raise NoDeviceError(
            "no GPU is visible in the pod; see its node's driver and device plugin, or set compute.gpusPerNode: 0 to"
            " quantize on the CPU",
            field="spec.compute.gpusPerNode",
        )


class NoDeviceError(RunError):
    """The pod has not the GPU that it was given."""

    reason = Reason.QUANTIZE_FAILED


def _check_room(config: QuantizeConfig, settings: MethodSettings, samples: list[list[int]], base: Base) -> None:
    import torch

    if settings.engine == "AutoAWQ":
        shape, vocabulary = quantizeautoawq.shape(base.folder), 0  # it never comes to logits
    else:
        skeleton = quantizescheme.skeleton(base)
        shape = quantizescheme.shape(skeleton, settings.ignore)
        vocabulary = int(skeleton.config.get_text_config().vocab_size)
    needed = quantizememory.need(settings, shape, quantizememory.text_of(samples, vocabulary))
    device = None if config.use_cpu else torch.cuda.mem_get_info()[0]
    quantizememory.check(settings, needed, host=container.memory_limit(), device=device)
    size = 2 * shape.parameters
    output = room.Need(
        Path(config.output_path),
        config.output_uri,
        "spec.output.uri",
        size,
        f"at most the size of the source, {quantizememory.gb(size)}",
    )
    room.check([output])


def teller(reporter: Reporter) -> Callable[[int, int], None]:
    """What tells log and operator which block is worked on."""
    progress = Progress(say)
    progress.begin(0)

    def tell(block: int, blocks: int) -> None:
        if block:
            progress.done(block)
        eta = progress.eta_seconds(blocks)
        say(block_line(block, blocks, eta_seconds=eta))
        reporter.update(Snapshot(step=block, total_steps=blocks, eta_seconds=eta if block else None))

    return tell


def _result(
    config: QuantizeConfig, settings: MethodSettings, folder: Path, target: Path, done: quantizing.Done
) -> QuantizeResult:
    record = ArtifactRecord(
        kind="Model",
        uri=f"{config.output_uri}/{target.name}",
        digest=weights.digest(weights.safetensors_files(folder)),
        size_bytes=0,
        base=config.source.uri,
        base_commit=config.source.commit,
    )
    result = QuantizeResult(
        outcome="Succeeded",
        stage="Quantize",
        run_digest=config.digest,
        warnings=policy.shortened(done.warnings),
        artifact=record,
        seconds=done.seconds,
        peak_memory_bytes=done.peak_memory_bytes,
        versions=[Metric(name=name, value=value) for name, value in quantizing.versions()],
    )
    (folder / "README.md").write_text(quantizecard.card(config, settings, result))
    size = artifact.size(folder)
    return result.model_copy(update={"artifact": record.model_copy(update={"size_bytes": size})})
