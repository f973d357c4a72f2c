"""One rank of a fine-tuning run, started by torchrun: `python -m largeforge.jobs.finetune CONFIG`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from largeforge.api.common import ErrorDetail
from largeforge.api.names import ExitCode, Reason
from largeforge.api.run import RunConfig, RunResult
from largeforge.jobs import arguments, artifact, checkpoints, report, stop
from largeforge.jobs.errors import RunError, from_exception
from largeforge.jobs.ranks import Ranks, from_environment
from largeforge.jobs.reporter import Reporter


def main(path: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Read, load, train, write; return the exit code. Every rank runs all of it, the first one speaks and writes."""
    os.umask(0o002)
    halvings = int(environment.get(report.BATCH_HALVINGS, "0"))
    config = arguments.halved(RunConfig.model_validate_json(path.read_bytes()), halvings)
    rank = int(environment.get("RANK", "0"))
    try:
        ranks = from_environment(environment, expected=config.compute.processes)
        result = run(config, ranks, environment, halvings=halvings)
    except stop.StoppedError:
        report.write_result(_stopped(config), rank=rank)
        return ExitCode.STOPPED
    except Exception as error:  # noqa: BLE001 - whatever it is, the user reads it in status
        return _report_failure(config, error, rank=rank)
    report.write_result(result, rank=rank)
    return 0


def run(config: RunConfig, ranks: Ranks, environment: Mapping[str, str], *, halvings: int) -> RunResult:
    """The result of an artifact that is whole already, or of a training."""
    from largeforge.jobs import hub, models, rows, training

    output = Path(config.output_path)
    if not os.access(output, os.W_OK | os.X_OK):
        raise StorageError(f"{config.output_uri}: cannot be written; see the claim's rights and free space")
    models.quiet_libraries()
    base = models.base(config, hub.model_folder(config))
    tokenizer = models.load_tokenizer(base)
    prepared = rows.load(config, tokenizer)
    name = artifact.folder_name(
        config.job,
        run_digest=config.digest,
        data_digest=prepared.digest,
        base_digest=artifact.base_identity(config.base, base.folder, config.adapter),
    )
    folder = Path(config.checkpoint.path) / checkpoints.folder_name(name)
    folder_uri = f"{config.checkpoint.uri}/{folder.name}"
    if ranks.first:
        report.write_place(folder, folder_uri)
    target = output / name
    if (found := artifact.find_whole(target, run_digest=config.digest)) is not None:
        if ranks.first:  # the attempt that wrote it was killed before it could
            checkpoints.remove(folder)
            for line in checkpoints.clear_replaced(folder, job=config.job, owner=config.uid):
                print(line, flush=True)  # noqa: T201 - the pod's log
        return found
    reporter = Reporter.from_environment(environment if ranks.first else {})
    try:
        return training.train(
            training.Run(config, ranks, base, tokenizer, prepared, target, folder, folder_uri, halvings), reporter
        )
    finally:
        reporter.close()


class StorageError(RunError):
    """The output's claim does not take the artifact."""

    reason = Reason.STORAGE_NOT_READY

    def __init__(self, message: str) -> None:
        super().__init__(message, field="spec.output.uri")


def _stopped(config: RunConfig) -> RunResult:
    text = "stopped by SIGTERM before it was complete; the next attempt goes on from its checkpoint"
    error = ErrorDetail(reason=Reason.DISRUPTED, message=text)
    return RunResult(outcome="Failed", run_digest=config.digest, error=error)


def _report_failure(config: RunConfig, error: Exception, *, rank: int) -> int:
    """Leave the failure for the launcher; the log gets the frames without the texts, which could hold content."""
    failure = from_exception(error)
    detail = failure.detail()
    report.write_result(RunResult(outcome="Failed", run_digest=config.digest, error=detail), rank=rank)
    if not isinstance(error, RunError):
        sys.stderr.write("".join(traceback.format_tb(error.__traceback__)))
    sys.stderr.write(f"rank {rank}: {detail.reason}: {detail.message}\n")
    sys.stderr.flush()
    return failure.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
