from __future__ import annotations

import hashlib
import json

import pytest

from largeforge.api.finetunejobstatus import ArtifactRecord
from largeforge.api.run import AdapterSource, ModelSource, RunResult
from largeforge.jobs import artifact
from tests.unit.jobs.folders import safetensors

DIGEST = "d" * 64
WEIGHTS = safetensors()
NAME = "sql-0123456789ab"


def result(weights=WEIGHTS, **changes):
    record = ArtifactRecord(
        kind="Adapter",
        uri=f"pvc://models/out/{NAME}",
        digest=hashlib.sha256(weights).hexdigest(),
        size_bytes=len(weights),
        rank=16,
        base="pvc://models/base",
    )
    return RunResult(**({"outcome": "Succeeded", "run_digest": DIGEST, "artifact": record} | changes))


def fill(weights=WEIGHTS):
    def files(folder):
        path = folder / "adapter_model.safetensors"
        path.write_bytes(weights)
        path.chmod(0o600)  # as the safetensors library does
        return result(weights)

    return files


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_name_changes_with_run_data_and_base():
    digests = {"run_digest": "a", "data_digest": "b", "base_digest": "c"}
    name = artifact.folder_name("sql", **digests)
    others = {artifact.folder_name("sql", **digests | {changed: "x"}) for changed in digests}
    digest = hashlib.sha256(b"a\nb\nc").hexdigest()
    assert name == f"sql-{digest[:12]}"
    assert len(others | {name}) == 4


def test_a_written_artifact_is_found_whole_and_adopted(tmp_path):
    written = artifact.write(tmp_path / NAME, fill(), attempt="1")
    assert entries(tmp_path) == [NAME]
    found = artifact.find_whole(tmp_path / NAME, run_digest=DIGEST)
    assert found == written.model_copy(update={"adopted": True})


def test_its_group_may_read_and_write_it(tmp_path):
    artifact.write(tmp_path / NAME, fill(), attempt="1")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / NAME).iterdir()}
    assert modes == {"adapter_model.safetensors": "0o664", "result.json": "0o664"}
    assert oct((tmp_path / NAME).stat().st_mode & 0o777) == "0o775"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "result.json").unlink(),
        lambda folder: (folder / "result.json").write_text("{"),
        lambda folder: (folder / "result.json").write_text(json.dumps({"outcome": "Failed", "runDigest": DIGEST})),
        lambda folder: (folder / "adapter_model.safetensors").write_bytes(safetensors(b"\x01" * 8)),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
    ],
)
def test_what_is_not_whole_is_not_adopted_and_put_out_of_the_way(tmp_path, spoil):
    target = tmp_path / NAME
    artifact.write(target, fill(), attempt="1")
    spoil(target)
    assert artifact.find_whole(target, run_digest=DIGEST) is None
    assert artifact.clear_leftovers(target) == [f"{NAME} (damaged, kept as .{NAME}.damaged)"]
    artifact.write(target, fill(), attempt="2")
    assert entries(tmp_path) == [f".{NAME}.damaged", NAME]


def test_the_artifact_of_another_run_is_not_adopted(tmp_path):
    artifact.write(tmp_path / NAME, fill(), attempt="1")
    assert artifact.find_whole(tmp_path / NAME, run_digest="e" * 64) is None


def test_an_attempt_killed_while_it_wrote_leaves_nothing_with_the_name(tmp_path):
    def killed(folder):
        (folder / "adapter_model.safetensors").write_bytes(WEIGHTS[:5])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifact.write(tmp_path / NAME, killed, attempt="1")
    assert entries(tmp_path) == [f".{NAME}.1"]
    assert artifact.find_whole(tmp_path / NAME, run_digest=DIGEST) is None
    assert artifact.clear_leftovers(tmp_path / NAME) == [f".{NAME}.1"]
    assert entries(tmp_path) == []


def test_leftovers_of_other_artifacts_stay(tmp_path):
    for name in (".sql-ffffffffffff.1", f".{NAME}x", NAME + "0"):
        (tmp_path / name).mkdir()
    (tmp_path / f".{NAME}.2").symlink_to("/")
    assert artifact.clear_leftovers(tmp_path / NAME) == []


def test_of_two_attempts_the_first_one_stays_and_the_second_adopts_it(tmp_path):
    first = artifact.write(tmp_path / NAME, fill(), attempt="1")
    second = artifact.write(tmp_path / NAME, fill(safetensors(b"\x01" * 8)), attempt="2")
    assert second == first.model_copy(update={"adopted": True})
    assert entries(tmp_path) == [NAME]


def test_a_place_taken_by_something_else_is_an_error(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine.txt").write_text("keep")
    with pytest.raises(OSError, match="not the same"):
        artifact.write(tmp_path / NAME, fill(), attempt="1")
    assert (tmp_path / NAME / "mine.txt").read_text() == "keep"


def test_the_size_leaves_out_the_result_that_names_it(tmp_path):
    artifact.write(tmp_path / NAME, fill(), attempt="1")
    assert artifact.size(tmp_path / NAME) == len(WEIGHTS)


def test_a_link_that_leads_out_of_the_base_is_not_copied(tmp_path):
    source, target = tmp_path / "base", tmp_path / "artifact"
    source.mkdir()
    target.mkdir()
    (tmp_path / "secret").write_text("no")
    (source / "blob").write_text("yes")
    (source / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    (source / "tokenizer.json").symlink_to("blob")
    artifact.copy_files(("tokenizer.json", "tokenizer_config.json", "vocab.json"), source=source, to=target)
    assert {path.name: path.read_text() for path in target.iterdir()} == {"tokenizer.json": "yes"}


def test_a_cached_model_is_copied_from_the_blobs_of_its_repository(tmp_path):
    snapshot, target = tmp_path / "repo" / "snapshots" / "c0ffee", tmp_path / "artifact"
    snapshot.mkdir(parents=True)
    target.mkdir()
    (tmp_path / "repo" / "blobs").mkdir()
    (tmp_path / "repo" / "blobs" / "1").write_text("yes")
    (tmp_path / "secret").write_text("no")
    (snapshot / "tokenizer.json").symlink_to("../../blobs/1")
    (snapshot / "vocab.json").symlink_to(tmp_path / "secret")
    artifact.copy_files(("tokenizer.json", "vocab.json"), source=snapshot, to=target, root=tmp_path / "repo")
    assert {path.name: path.read_text() for path in target.iterdir()} == {"tokenizer.json": "yes"}


def test_a_commit_stands_for_the_weights_then_the_digest_of_preflight_then_the_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    source = ModelSource(uri="pvc://m/b", field="spec.base.uri", path=str(tmp_path), commit="c" * 40, digest="d" * 64)
    files = hashlib.sha256(WEIGHTS).hexdigest()
    without = [source.model_copy(update=update) for update in ({"commit": None}, {"commit": None, "digest": None})]
    known = [artifact.base_identity(base, tmp_path, None) for base in (source, *without)]
    assert known == ["c" * 40, "d" * 64, files]


def test_the_adapter_to_go_on_from_counts_into_the_base(tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(WEIGHTS)
    source = ModelSource(uri="pvc://m/b", field="spec.base.uri", path="/nowhere", digest="d" * 64)
    adapter = AdapterSource(uri="pvc://m/a", field="spec.base", path=str(tmp_path))
    found = artifact.base_identity(source, tmp_path, adapter)
    assert found == hashlib.sha256(f"{'d' * 64}\n{hashlib.sha256(WEIGHTS).hexdigest()}".encode()).hexdigest()
