from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.api.messages import QUESTION
from largeforge.jobs import deliver as entry
from largeforge.jobs import delivery, weights
from largeforge.jobs.artifacterrors import NotAnAdapterError
from largeforge.jobs.delivery import Target, deliver
from largeforge.jobs.errors import RunError
from largeforge.jobs.folders import Folder
from largeforge.jobs.removal import remove
from tests.unit.jobs.adapters import adapter, matrices
from tests.unit.jobs.folders import model

URI = "pvc://uploads/sql"
FIELD = "spec.artifact.uri"


def source_of(path):
    return Folder(path, URI, FIELD, NotAnAdapterError)


def digest_of(path):
    return weights.digest(weights.safetensors_files(path))


@pytest.fixture
def upload(tmp_path):
    path = adapter(tmp_path / "upload")
    (path / "runs").mkdir()
    (path / "runs" / "events").write_text("x")
    (path / "adapter_config.json").chmod(0o600)
    return path


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    return path


def target_of(store, digest):
    return Target(store, digest, f"pvc://models/store/{digest}")


def bring(upload, store, *, attempt="11111111", digest=None):
    digest = digest or digest_of(upload)
    return deliver(source_of(upload), target_of(store, digest), digest=digest, attempt=attempt)


def refusal(upload, store, **fields):
    with pytest.raises(RunError) as caught:
        bring(upload, store, **fields)
    return caught.value.reason, caught.value.exit_code, str(caught.value)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_adapter_lies_under_its_digest_whole(upload, store):
    size, adopted = bring(upload, store)
    (folder,) = store.iterdir()
    assert folder.name == digest_of(upload)
    assert content(folder) == content(upload)
    assert (size, adopted) == (sum(len(each) for each in content(upload).values()), False)


def test_the_group_reads_it_whatever_the_users_rights_were(upload, store):
    bring(upload, store)
    (folder,) = store.iterdir()
    for path in [folder, *folder.rglob("*")]:
        wanted = 0o2775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_hidden_files_and_pickles_stay_behind(upload, store):
    for name in (".git", "optimizer.pt", "training_args.bin"):
        (upload / name).write_text("x")
    bring(upload, store)
    (folder,) = store.iterdir()
    assert entries(folder) == ["adapter_config.json", "adapter_model.safetensors", "runs"]


def test_what_is_there_whole_is_taken_as_it_is(upload, store):
    bring(upload, store)
    (folder,) = store.iterdir()
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert bring(upload, store, attempt="22222222")[1]
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before


def test_it_is_taken_even_when_its_source_is_gone(upload, store):
    digest = digest_of(upload)
    bring(upload, store)
    for path in sorted(upload.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert bring(upload, store, digest=digest)[1]


def test_a_source_that_is_gone_leaves_nothing(upload, store, tmp_path):
    reason, code, said = refusal(tmp_path / "no", store, digest=digest_of(upload))
    assert (reason, code) == ("ArtifactNotFound", 65)
    assert said == f"{URI}: there is no such folder; name the folder that holds the files"
    assert entries(store) == []


def test_other_weights_than_were_looked_at_leave_nothing(upload, store):
    digest = digest_of(upload)
    adapter(upload, arrays=matrices(b=0.75))
    reason, code, said = refusal(upload, store, digest=digest)
    assert (reason, code) == ("DigestDiffers", 65)
    assert f"{digest[:12]}… was looked at: somebody writes there" in said
    assert entries(store) == []


def test_what_a_killed_copy_left_is_removed_by_the_next_of_its_job(upload, store):
    leftover = store / f".{digest_of(upload)}.11111111"
    leftover.mkdir()
    (leftover / "adapter_model.safetensors").write_text("half")
    bring(upload, store)
    assert entries(store) == [digest_of(upload)]


def test_the_copy_of_another_job_is_removed_only_when_it_does_not_grow_any_more(upload, store):
    alive, dead = (store / f".{digest_of(upload)}.{name}" for name in ("alive", "dead"))
    for each in (alive, dead):
        each.mkdir()
    os.utime(dead, (0, dead.stat().st_mtime - delivery.STALE_SECONDS - 1))
    bring(upload, store)
    assert entries(store) == sorted([alive.name, digest_of(upload)])


def test_many_at_once_end_with_one_whole_folder(upload, store):
    ended, start = [], threading.Barrier(8)

    def one(number):
        start.wait()
        ended.append(bring(upload, store, attempt=f"{number:08}"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == 8
    assert [adopted for _, adopted in ended].count(False) == 1
    assert entries(store) == [digest_of(upload)]
    assert content(store / digest_of(upload)) == content(upload)


@pytest.mark.parametrize("damage", ["cut", "file", "link"])
def test_what_is_damaged_in_its_place_is_kept_beside_it(upload, store, tmp_path, damage):
    digest = digest_of(upload)
    if damage == "cut":
        bring(upload, store)
        (store / digest / "adapter_model.safetensors").write_text("half")
    elif damage == "file":
        (store / digest).write_text("what is this")
    else:
        (store / digest).symlink_to(tmp_path)
    assert bring(upload, store) == (sum(len(each) for each in content(upload).values()), False)
    assert entries(store) == [f".{digest}.damaged", digest]
    assert content(store / digest) == content(upload)
    assert (tmp_path / "upload").is_dir(), "nothing was done to what a link led to"


def test_too_little_room_is_told_before_anything_is_copied(upload, store, monkeypatch):
    monkeypatch.setattr(delivery.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    reason, code, said = refusal(upload, store)
    assert (reason, code) == ("DiskFull", 1)
    assert "and the store has 1.0 MB; free space, or use a larger claim" in said
    assert entries(store) == []


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (errno.ENOSPC, ("DiskFull", "the store filled up")),
        (errno.EDQUOT, ("DiskFull", "the store filled up")),
        (errno.EACCES, ("StorageNotReady", "it must belong to group 2000 or be open to it")),
        (errno.EROFS, ("StorageNotReady", "the claim must not be read-only")),
        (errno.EIO, ("StorageNotReady", "see the claim's storage")),
    ],
)
def test_what_the_store_refuses_in_the_middle_leaves_nothing(upload, store, monkeypatch, error, refused):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(delivery.artifact, "settle", refuse)
    reason, code, said = refusal(upload, store)
    assert (reason, code) == (refused[0], 1), "the Job tries again"
    assert refused[1] in said
    assert entries(store) == []


def test_a_link_in_the_source_is_refused(upload, store, tmp_path):
    (tmp_path / "secret").write_text("key")
    (upload / "runs" / "more").symlink_to(tmp_path / "secret")
    reason, _, said = refusal(upload, store)
    assert reason == "SymlinkRefused"
    assert said.startswith(f"{URI}: runs/more is a symbolic link, and none is followed")
    assert entries(store) == []


@pytest.mark.parametrize("swapped", ["runs/events", "runs"])
def test_a_link_that_is_made_while_it_is_copied_is_not_followed(upload, store, tmp_path, monkeypatch, swapped):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "events").write_text("another team's")
    listed = delivery.tree

    def swap(folder):
        files = listed(folder)
        (upload / swapped).rename(tmp_path / "before")
        (upload / swapped).symlink_to(elsewhere if swapped == "runs" else elsewhere / "events")
        return files

    monkeypatch.setattr(delivery, "tree", swap)
    reason, _, said = refusal(upload, store)
    assert (reason, "became a symbolic link" in said) == ("SymlinkRefused", True)
    assert entries(store) == []


def test_a_folder_is_removed_and_being_gone_is_as_good(upload, store):
    bring(upload, store)
    target = target_of(store, digest_of(upload))
    assert remove(target, digest=digest_of(upload), field="spec.deletionPolicy")
    assert entries(store) == []
    assert not remove(target, digest=digest_of(upload), field="spec.deletionPolicy")


def test_what_a_killed_removal_left_is_removed(upload, store):
    bring(upload, store)
    digest = digest_of(upload)
    (store / digest).rename(store / f".{digest}.removed")
    assert not remove(target_of(store, digest), digest=digest, field="spec.deletionPolicy")
    assert entries(store) == []


def test_a_model_is_known_again_by_the_weights_that_are_loaded(store):
    folder = model(store / "m")
    digest = digest_of(folder)
    (folder / "consolidated.safetensors").write_bytes(b"other weights")
    assert remove(Target(store, "m", "pvc://models/m"), digest=digest, field="spec.deletionPolicy")
    assert entries(store) == []


def test_what_is_not_meant_is_not_removed(upload, store, tmp_path):
    digest = digest_of(upload)
    bring(upload, store)
    adapter(store / digest, arrays=matrices(b=0.75))
    with pytest.raises(RunError, match="is not removed: its weights have the digest") as caught:
        remove(target_of(store, digest), digest=digest, field="spec.deletionPolicy")
    assert (caught.value.reason, caught.value.exit_code) == ("DigestDiffers", 65)
    (store / "notes").mkdir()
    (store / "notes" / "a.txt").write_text("x")
    (store / "link").symlink_to(upload)
    for name in ("notes", "link"):
        with pytest.raises(RunError):
            remove(Target(store, name, f"pvc://models/{name}"), digest=digest, field="spec.deletionPolicy")
    assert entries(store) == [digest, "link", "notes"]
    assert (tmp_path / "upload" / "adapter_config.json").is_file()


def asked(store, **fields):
    return DeliverConfig(target_path=str(store), **fields)


def answered(tmp_path, monkeypatch, config):
    monkeypatch.setenv(QUESTION, config.model_dump_json(by_alias=True, exclude_defaults=True))
    code = entry.main(["--termination-log", str(tmp_path / "log")])
    return code, DeliverResult.model_validate_json((tmp_path / "log").read_bytes())


def test_the_process_delivers_and_removes_as_it_is_asked(upload, store, tmp_path, monkeypatch):
    digest = digest_of(upload)
    place = {"target_uri": f"pvc://models/store/{digest}", "target_name": digest, "digest": digest, "field": FIELD}
    config = asked(store, source_uri=URI, source_path=str(upload), **place)
    for adopted in (False, True):
        code, result = answered(tmp_path, monkeypatch, config)
        assert (code, result.outcome, result.adopted, result.request) == (0, "Succeeded", adopted, config.request)
        assert result.uri == place["target_uri"]
        assert result.size_bytes > 0
    removal = asked(store, action="Remove", **place)
    for gone in (False, True):
        code, result = answered(tmp_path, monkeypatch, removal)
        assert (code, result.outcome, result.adopted) == (0, "Succeeded", gone)
    assert entries(store) == []
    code, result = answered(tmp_path, monkeypatch, config.model_copy(update={"source_path": str(tmp_path / "no")}))
    assert (code, result.outcome, result.error.reason) == (65, "Failed", "ArtifactNotFound")


KILLED = """
import os, signal, sys
from pathlib import Path
from largeforge.api.deliver import DeliverConfig
from largeforge.jobs import artifact, deliver

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(*{"before the rename": (artifact, "settle", kill), "at the rename": (Path, "rename", kill)}[sys.argv[1]])
deliver.answer(DeliverConfig.model_validate_json(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["before the rename", "at the rename"])
def test_killed_at_any_moment_nothing_half_is_to_be_seen_and_the_next_one_ends_well(upload, store, moment):
    digest = digest_of(upload)
    config = asked(
        store, source_uri=URI, source_path=str(upload), field=FIELD, digest=digest,
        target_uri=f"pvc://models/store/{digest}", target_name=digest,
    )  # fmt: skip
    call = [sys.executable, "-c", KILLED, moment, config.model_dump_json(by_alias=True)]
    assert subprocess.run(call, check=False).returncode == -signal.SIGKILL
    assert entries(store) == [f".{digest}.{config.request[:8]}"]
    assert entry.answer(config).adopted is False
    assert entries(store) == [digest]
    assert content(store / digest) == content(upload)
