from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from largeforge.api.finetunejobstatus import ArtifactRecord, DatasetSummary
from largeforge.api.run import RunResult
from largeforge.jobs import artifact, basemodel, preflight, weights
from largeforge.jobs.errors import DatasetInvalidError, InvalidConfigError
from tests.unit.jobs.folders import model
from tests.unit.jobs.runs import CHAT, config, source, written


def stored(tmp_path, **fields):
    run = config(tmp_path, source(written(tmp_path / "a.jsonl", CHAT)), **fields)
    path = tmp_path / "config.json"
    path.write_text(run.model_dump_json())
    return path


def failing(monkeypatch, error):
    def check(progress):
        progress.dataset = DatasetSummary(digest="d", samples=0, invalid=3)
        progress.warnings.append("look at https://user:secret@hub.example/x")
        raise error

    monkeypatch.setattr(preflight, "check", check)


def test_a_configuration_that_cannot_be_read_is_the_operators_fault_and_final(tmp_path):
    (tmp_path / "config.json").write_text('{"namespace": 7}')
    result, code = preflight.run(tmp_path / "config.json")
    assert (result.outcome, result.stage, code) == ("Failed", "Preflight", 64)
    assert result.error.reason == "InvalidConfig"
    assert "operator and trainer image must be of one version" in result.error.message


def test_a_failed_preflight_tells_what_it_has_found_so_far(tmp_path, monkeypatch):
    failing(monkeypatch, DatasetInvalidError("3 of 9 rows are wrong: …", field="spec.datasets[0]"))
    result, code = preflight.run(stored(tmp_path))
    assert (code, result.error.reason, result.error.field) == (65, "DatasetInvalid", "spec.datasets[0]")
    assert (result.dataset.invalid, result.run_digest, result.stage) == (3, "ab" * 32, "Preflight")
    assert result.warnings == ["look at https://***@hub.example/x"]


def test_trouble_that_time_may_cure_is_tried_again(tmp_path, monkeypatch, capsys):
    failing(monkeypatch, OSError(28, "No space left on device"))
    result, code = preflight.run(stored(tmp_path))
    assert (code, result.error.reason) == (1, "DiskFull")
    assert "No space left" not in capsys.readouterr().err  # frames alone: a text could hold content


def test_a_stop_is_no_failure(tmp_path, monkeypatch):
    failing(monkeypatch, preflight.Stopped())
    result, code = preflight.run(stored(tmp_path))
    assert (code, result.error.reason) == (75, "Disrupted")


def test_sigterm_is_heard_by_a_process_without_a_default_action(tmp_path):
    program = (
        "import sys, time\nfrom largeforge.jobs import preflight\n"
        "def check(progress):\n    print('waiting', flush=True)\n    time.sleep(60)\n"
        "preflight.check = check\nsys.exit(preflight.main(sys.argv[1:]))"
    )
    message = tmp_path / "message"
    argv = [sys.executable, "-c", program, str(stored(tmp_path)), "--termination-log", str(message)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=os.environ) as child:
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 75
    assert json.loads(message.read_text())["error"]["reason"] == "Disrupted"


def test_the_last_line_says_how_it_ended():
    found = DatasetSummary(digest="d", samples=98, eval_samples=2, tokens=4321)
    passed = RunResult(outcome="Succeeded", stage="Preflight", dataset=found)
    assert preflight.ending_line(passed) == "succeeded: 98 rows to train on, 2 held out, 4321 tokens"
    adopted = passed.model_copy(update={"adopted": True})
    assert preflight.ending_line(adopted) == "succeeded: the artifact is there already"


def whole_artifact(run, base, data_digest):
    name = preflight.artifact_name(run, base, data_digest)
    return artifact.find_whole(pathlib.Path(run.output_path) / name, run_digest=run.digest)


def test_an_artifact_that_is_whole_ends_the_run_before_a_gpu_is_taken(tmp_path):
    run = config(tmp_path, source(written(tmp_path / "a.jsonl", CHAT)))
    run = run.model_copy(update={"base": run.base.model_copy(update={"digest": "b" * 64})})
    base = basemodel.inspect(model(tmp_path / "base"), run.base)
    assert whole_artifact(run, base, "d" * 64) is None
    name = artifact.folder_name(run.job, run_digest=run.digest, data_digest="d" * 64, base_digest="b" * 64)
    folder = model(tmp_path / "output" / name)
    record = ArtifactRecord(
        kind="Model",
        uri=f"pvc://out/sql/{name}",
        digest=weights.digest([folder / "model.safetensors"]),
        size_bytes=1,
        base=run.base.uri,
    )
    result = RunResult(outcome="Succeeded", run_digest=run.digest, artifact=record)
    (folder / "result.json").write_text(result.model_dump_json(by_alias=True, exclude_none=True))
    found = whole_artifact(run, base, "d" * 64)
    assert (found.adopted, found.artifact) == (True, record)
    assert whole_artifact(run, base, "e" * 64) is None  # other data, another artifact


def test_what_is_found_whole_is_told_with_all_that_preflight_knows_of_the_data(tmp_path):
    known = DatasetSummary(digest="d", samples=98, tokens=4321, formats=["Messages"])
    run = config(tmp_path, source(written(tmp_path / "a.jsonl", CHAT)))
    stored_result = RunResult(outcome="Succeeded", adopted=True, dataset=DatasetSummary(digest="d", samples=98))
    told = preflight.Progress(run, dataset=known).adopted(stored_result)
    assert (told.adopted, told.dataset) == (True, known)


@pytest.mark.parametrize("kind", ["messages", "text"])
def test_completion_only_loss_needs_prompt_and_completion(tmp_path, kind):
    run = config(tmp_path, source(tmp_path / "a.jsonl"), training={"completion_only_loss": True})
    with pytest.raises(InvalidConfigError) as caught:
        preflight.check_loss(run, kind)
    assert str(caught.value) == (
        f"spec.training.completionOnlyLoss needs rows of prompt and completion, and these are {kind}; remove it, or use"
        " assistantOnlyLoss for messages"
    )
    preflight.check_loss(run, "prompt and completion as text")
