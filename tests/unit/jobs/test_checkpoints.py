from __future__ import annotations

import pytest

from largeforge.api.finetunejobstatus import TokenLogprob
from largeforge.jobs import checkpoints
from largeforge.jobs.checkpoints import Journal


def write(folder, step, *, trained_seconds=None, sealed=True):
    path = checkpoints.path_of(folder, step)
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"state")
    (path / "rng_state_0.pth").write_bytes(b"seed")
    if sealed:
        checkpoints.seal(path, step=step, trained_seconds=step if trained_seconds is None else trained_seconds)
    return path


def steps(folder):
    return [checkpoint.manifest.step for checkpoint in checkpoints.complete(folder)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_the_one_with_the_highest_step_as_a_number(tmp_path):
    for step in (5, 100, 20):
        write(tmp_path, step)
    assert steps(tmp_path) == [100, 20, 5]
    assert checkpoints.newest(tmp_path).path.name == "checkpoint-100"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: (path / checkpoints.MANIFEST).unlink(),
        lambda path: (path / checkpoints.MANIFEST).write_text("{"),
        lambda path: (path / "optimizer.pt").write_bytes(b"stat"),
        lambda path: (path / "rng_state_0.pth").unlink(),
        lambda path: path.rename(path.with_name("checkpoint-99")),
    ],
)
def test_a_broken_one_is_passed_over(tmp_path, spoil):
    write(tmp_path, 5)
    spoil(write(tmp_path, 10))
    assert steps(tmp_path) == [5]


def test_one_that_was_being_written_when_the_pod_was_killed_is_passed_over(tmp_path):
    write(tmp_path, 10, sealed=False)
    assert checkpoints.newest(tmp_path) is None


def test_the_newest_are_kept_and_broken_ones_are_removed(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    write(tmp_path, 20, sealed=False)
    checkpoints.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-15"]


def test_the_best_one_is_kept_beside_them(tmp_path):
    for step in (5, 10, 15):
        write(tmp_path, step)
    checkpoints.prune(tmp_path, keep=1, best=5)
    assert steps(tmp_path) == [15, 5]


def test_a_first_attempt_begins_at_nothing(tmp_path):
    folder = tmp_path / checkpoints.folder_name("sql-0123456789ab")
    assert checkpoints.begin(folder, resume=True) is None
    assert checkpoints.read_journal(folder) == Journal()
    assert checkpoints.record(folder, uri="pvc://out/x") is None
    assert folder.name == ".sql-0123456789ab-checkpoints"


def test_a_killed_attempt_is_gone_on_from_and_what_it_lost_is_counted(tmp_path):
    checkpoints.begin(tmp_path, resume=True)
    write(tmp_path, 10, trained_seconds=100)
    checkpoints.write_journal(tmp_path, Journal(step=17, trained_seconds=170.0))
    assert checkpoints.record(tmp_path, uri="pvc://out/x").lost_seconds == 70
    found = checkpoints.begin(tmp_path, resume=True)
    record = checkpoints.record(tmp_path, uri="pvc://out/x")
    assert found.manifest.step == 10
    assert (record.step, record.resumes, record.lost_seconds) == (10, 1, 70)
    assert record.uri == "pvc://out/x/checkpoint-10"


def test_losses_add_up_over_attempts(tmp_path):
    write(tmp_path, 10, trained_seconds=100)
    for reached in (130.0, 145.0):
        known = checkpoints.read_journal(tmp_path)
        checkpoints.write_journal(tmp_path, known.model_copy(update={"trained_seconds": reached}))
        checkpoints.begin(tmp_path, resume=True)
    record = checkpoints.record(tmp_path, uri="pvc://out/x")
    assert (record.resumes, record.lost_seconds) == (2, 75)


def test_resume_never_begins_anew_and_counts_all_as_lost(tmp_path):
    write(tmp_path, 10, trained_seconds=100)
    checkpoints.write_journal(tmp_path, Journal(step=10, trained_seconds=100.0))
    assert checkpoints.begin(tmp_path, resume=False) is None
    journal = checkpoints.read_journal(tmp_path)
    assert (journal.resumes, journal.lost_seconds, journal.trained_seconds) == (0, 100, 0)
    assert steps(tmp_path) == []


def test_what_the_base_answered_outlives_the_attempt(tmp_path):
    answers = {"fact": [TokenLogprob(id=7, logprob="-0.5000")]}
    write(tmp_path, 10)
    checkpoints.write_journal(tmp_path, Journal(base_answers=answers))
    checkpoints.begin(tmp_path, resume=True)
    assert checkpoints.read_journal(tmp_path).base_answers == answers


def test_a_journal_that_cannot_be_read_costs_the_record_and_not_the_run(tmp_path):
    write(tmp_path, 10)
    (tmp_path / "journal.json").write_text("{")
    assert checkpoints.begin(tmp_path, resume=True).manifest.step == 10


def test_nothing_is_left_when_the_artifact_is_whole(tmp_path):
    folder = tmp_path / ".sql-0123456789ab-checkpoints"
    checkpoints.begin(folder, resume=True)
    write(folder, 10)
    checkpoints.remove(folder)
    checkpoints.remove(folder)
    assert names(tmp_path) == []
