"""Everything that can be found wrong before a GPU is taken: `python -m largeforge.jobs.preflight [CONFIG]`, PID 1.

It downloads what comes from the hub, reads every row, and builds the model without its weights. A run whose artifact is
whole already ends here. Exit codes: 0, 64 (a setting), 65 (data or base), 75 (stopped), 1 (trouble that time may cure).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import DatasetSummary
from largeforge.api.names import ExitCode, Reason
from largeforge.api.redact import redact
from largeforge.api.run import CONFIG_DIR, CONFIG_FILE, TERMINATION_LOG, ResolvedSources, RunConfig, RunResult
from largeforge.jobs import artifact, basemodel, checkpoints, container, datareport, hub, policy, room, sources, weights
from largeforge.jobs.basemodel import BaseModel
from largeforge.jobs.errors import InvalidConfigError, RunError, from_exception
from largeforge.jobs.examine import Examiner, Findings


class Stopped(BaseException):
    """SIGTERM came. No error: a library that catches those must not catch this."""


def main(arguments: list[str] | None = None) -> int:
    """Check the configured run; return the exit code."""
    parser = argparse.ArgumentParser(prog="largeforge.jobs.preflight", description="Check one run of a FineTuneJob.")
    parser.add_argument("config", nargs="?", type=Path, default=Path(CONFIG_DIR) / CONFIG_FILE)
    parser.add_argument("--termination-log", type=Path, default=Path(TERMINATION_LOG))
    options = parser.parse_args(arguments)
    os.umask(0o002)
    # PID 1 has no default action for it: without a handler SIGTERM would be lost.
    signal.signal(signal.SIGTERM, _stop)
    result, code = run(options.config)
    _say(ending_line(result))
    try:
        options.termination_log.write_text(result.message())
    except OSError as error:
        print(f"the termination message cannot be written: {error}", file=sys.stderr)  # noqa: T201
    return code


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def run(path: Path) -> tuple[RunResult, int]:
    """Check what *path* configures; return the result and the exit code."""
    try:
        config = RunConfig.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        text = f"{path}: cannot be read as the configuration of a run ({type(error).__name__}); operator and trainer"
        detail = ErrorDetail(reason=Reason.INVALID_CONFIG, message=f"{text} image must be of one version")
        return RunResult(outcome="Failed", stage="Preflight", error=detail), ExitCode.INVALID_CONFIG
    progress = Progress(config)
    try:
        return check(progress), 0
    except Stopped:
        detail = ErrorDetail(reason=Reason.DISRUPTED, message="preflight was stopped by SIGTERM; it begins anew")
        return progress.failed(detail), ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user reads it in status
        failure = from_exception(error)
        if not isinstance(error, RunError):
            # The frames without the texts, which could hold content.
            sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
        return progress.failed(failure.detail()), failure.exit_code


@dataclass(slots=True)
class Progress:
    """What is known of the run so far; a result that failed tells it too."""

    config: RunConfig
    resolved: ResolvedSources | None = None
    dataset: DatasetSummary | None = None
    warnings: list[str] = field(default_factory=list)

    def failed(self, detail: ErrorDetail) -> RunResult:
        """The result of a run that cannot go on."""
        return self._result("Failed", error=detail)

    def passed(self) -> RunResult:
        """The result of a run that may take a GPU."""
        return self._result("Succeeded")

    def adopted(self, found: RunResult) -> RunResult:
        """*found*, which an earlier attempt left beside its artifact, with what is known of the data today."""
        return found.model_copy(update={"dataset": self.dataset, "sources": self.resolved})

    def _result(self, outcome: Any, **more: Any) -> RunResult:
        return RunResult(
            outcome=outcome,
            stage="Preflight",
            run_digest=self.config.digest,
            dataset=self.dataset,
            sources=self.resolved,
            warnings=policy.shortened([redact(text) for text in self.warnings]),
            **more,
        )


def check(progress: Progress) -> RunResult:
    """All checks in order of their cost; a `RunError` ends them."""
    _prepare()
    from largeforge.jobs import models, rehearsal, settingscheck

    config = progress.config
    _say(f"checking {config.job} run {config.run}: settings")
    models.quiet_libraries()
    progress.warnings += settingscheck.check(config)
    room.check_writable(config)
    config = progress.config = _resolve(progress)
    base = _check_base(progress)
    tokenizer = models.load_tokenizer(models.base(config, base.path))
    settingscheck.check_tokens(config, tokenizer)
    findings = _examine(progress, base, tokenizer)
    _judge(progress, findings)
    name = artifact_name(config, base, findings.digest)
    folder = Path(config.checkpoint.path) / checkpoints.folder_name(name)
    found = artifact.find_whole(Path(config.output_path) / name, run_digest=config.digest)
    if found is not None:
        _say("an earlier attempt has written the artifact; nothing is to be trained")
        for line in checkpoints.clear_replaced(folder, job=config.job, owner=config.uid):
            _say(line)
        return progress.adopted(found)
    if findings.samples:
        _say("making the trainer on a tiny model")
        rehearsal.check(config, tokenizer, findings.samples)
    earlier = checkpoints.replaced(folder, job=config.job, owner=config.uid)
    _check_size(config, base, freed=sum(map(checkpoints.size, earlier)))
    return progress.passed()


def _prepare() -> None:
    """Set what libraries read when they are imported."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # the image says otherwise, for training
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    os.environ.setdefault("RAYON_NUM_THREADS", str(container.available()))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    hub.prepare()


def _resolve(progress: Progress) -> RunConfig:
    """Find the commits and download; return the configuration with the commits in it."""
    config = progress.config
    base = config.base
    specs = [*config.datasets, *([config.eval_dataset] if config.eval_dataset is not None else [])]
    if base.path is None:
        repo = hub.repository(base, config.cache_path)
        base = base.model_copy(update={"commit": base.commit or hub.commit_of(repo)})
        hub.fetch_model(hub.repository(base, config.cache_path), say=_say, trust_remote_code=base.trust_remote_code)
    pinned = []
    for spec in specs:
        if spec.path is not None:
            pinned.append(spec)
            continue
        commit = spec.commit or hub.commit_of(hub.repository(spec, config.cache_path))
        pinned.append(spec.model_copy(update={"commit": commit}))
        hub.fetch_dataset(hub.repository(pinned[-1], config.cache_path), pinned[-1], say=_say)
    if config.cache_path is None and (base.path is None or any(spec.path is None for spec in specs)):
        progress.warnings.append(
            "downloads went to the pod's own disk, and every attempt makes them again while it holds a GPU; set"
            " spec.cache.uri, to a claim that is bound already"
        )
    count = len(config.datasets)
    progress.resolved = ResolvedSources(base_commit=base.commit, dataset_commits=[spec.commit or "" for spec in pinned])
    return config.model_copy(
        update={
            "base": base,
            "datasets": pinned[:count],
            "eval_dataset": pinned[count] if len(pinned) > count else None,
        }
    )


def _check_base(progress: Progress) -> BaseModel:
    config = progress.config
    base = basemodel.inspect(hub.model_folder(config), config.base)
    if config.base.commit is not None:
        digest = config.base.commit
    else:
        _say(f"reading the base's weights: {base.size / 1e9:.1f} GB")
        digest = weights.digest(base.weights)
    progress.config = config.model_copy(update={"base": config.base.model_copy(update={"digest": digest})})
    known = progress.resolved or ResolvedSources()
    progress.resolved = known.model_copy(update={"base_digest": digest})
    return base


def _examine(progress: Progress, base: BaseModel, tokenizer: Any) -> Findings:
    from largeforge.jobs import rows
    from largeforge.jobs.tokens import Encoder

    config = progress.config
    trained, held_out = sources.open_all(config)
    if "messages" in trained[0].kind:
        basemodel.require_chat_template(base, config.base)
    encoder = Encoder(tokenizer, trained[0].kind, assistant_only=config.training.assistant_only_loss)
    check_loss(config, trained[0].kind)
    limit = rows.limit(config)
    if limit < config.training.max_length:
        progress.warnings.append(f"the base has {limit} positions; training.maxLength {config.training.max_length} is"
                                 f" lowered to it")  # fmt: skip
    return Examiner(config, encoder, limit, _say).examine(trained, held_out)


def check_loss(config: RunConfig, kind: str) -> None:
    """Raise where the loss that is asked for does not go with rows of *kind*."""
    if config.training.completion_only_loss and not kind.startswith("prompt"):
        raise InvalidConfigError(
            f"spec.training.completionOnlyLoss needs rows of prompt and completion, and these are {kind}; remove it, or"
            " use assistantOnlyLoss for messages",
            field="spec.training.completionOnlyLoss",
        )


def _judge(progress: Progress, findings: Findings) -> None:
    """Say what was found, in the result and in the report, before the policy decides."""
    config = progress.config
    folder = Path(config.output_path)
    name = datareport.file_name(config)
    uri = f"{config.output_uri}/{name}" if folder.is_dir() else None
    progress.dataset = policy.summary(findings, report=uri)
    try:
        progress.warnings += policy.judge(config, findings)
    finally:
        if uri is not None:
            datareport.write(folder / name, datareport.content(config, findings, progress.dataset, progress.warnings))


def artifact_name(config: RunConfig, base: BaseModel, data_digest: str) -> str:
    """The name of the folder that the run writes."""
    identity = artifact.base_identity(config.base, base.path, config.adapter)
    return artifact.folder_name(config.job, run_digest=config.digest, data_digest=data_digest, base_digest=identity)


def _check_size(config: RunConfig, base: BaseModel, *, freed: int) -> None:
    """The model without its weights, and the room for what will be written when *freed* bytes are removed."""
    from largeforge.jobs import models, skeleton

    _say("building the model without its weights")
    size = skeleton.examine(config, models.base(config, base.path))
    _say(f"{size.parameters:,} parameters, {size.trained:,} of them trained")
    needs = room.needs(config, parameters=size.parameters, trained=size.trained, base_bytes=base.size, freed=freed)
    room.check(needs)


def ending_line(result: RunResult) -> str:
    """The last line of the pod's log."""
    if result.error is not None:
        return f"failed: {result.error.reason}: {result.error.message}"
    if result.adopted:
        return "succeeded: the artifact is there already"
    found = result.dataset or DatasetSummary(digest="", samples=0)
    return f"succeeded: {found.samples} rows to train on, {found.eval_samples} held out, {found.tokens} tokens"


def _say(line: str, out: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:  # noqa: T201
    out(line)


if __name__ == "__main__":
    sys.exit(main())
