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


def left(parent, name, *, owner):
    """The folder of an earlier run, with a checkpoint."""
    folder = parent / name
    checkpoints.begin(folder, resume=True, owner=owner)
    write(folder, 10)
    return folder


MINE, OWN = "uid-of-sql", ".sql-0123456789ab-checkpoints"


def test_those_of_replaced_and_failed_runs_of_the_object_are_removed(tmp_path):
    left(tmp_path, ".sql-aaaaaaaaaaaa-checkpoints", owner=MINE)
    left(tmp_path, ".sql-bbbbbbbbbbbb-checkpoints", owner=MINE)
    left(tmp_path, OWN, owner=MINE)
    (tmp_path / "sql-aaaaaaaaaaaa").mkdir()
    assert checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner=MINE) == [
        "removed .sql-aaaaaaaaaaaa-checkpoints of an earlier run",
        "removed .sql-bbbbbbbbbbbb-checkpoints of an earlier run",
    ]
    assert names(tmp_path) == [OWN, "sql-aaaaaaaaaaaa"]
    assert steps(tmp_path / OWN) == [10]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        (".sql-aaaaaaaaaaaa-checkpoints", "uid-of-another-sql"),  # an object of that name before, or elsewhere
        (".sql-aaaaaaaaaaaa-checkpoints", ""),
        (".sql-0123456789ab-aaaaaaaaaaaa-checkpoints", MINE),  # of an object named sql-0123456789ab
        (".mysql-aaaaaaaaaaaa-checkpoints", MINE),
    ],
)
def test_those_of_another_object_are_never_removed(tmp_path, name, owner):
    left(tmp_path, name, owner=owner)
    assert checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner=MINE) == []
    assert checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner="") == []
    assert steps(tmp_path / name) == [10]


def test_whose_a_folder_is_is_known_until_all_else_of_it_is_gone(tmp_path, monkeypatch):
    folder = left(tmp_path, ".sql-aaaaaaaaaaaa-checkpoints", owner=MINE)
    (folder / "runs").mkdir()

    def killed(_):
        raise SystemExit

    monkeypatch.setattr(checkpoints.shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner=MINE)
    assert steps(folder) == []
    monkeypatch.undo()
    assert len(checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner=MINE)) == 1
    assert names(tmp_path) == []


def test_one_that_cannot_be_removed_is_said_and_costs_no_run(tmp_path, monkeypatch):
    left(tmp_path, ".sql-aaaaaaaaaaaa-checkpoints", owner=MINE)

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(checkpoints.shutil, "rmtree", refused)
    assert checkpoints.clear_replaced(tmp_path / OWN, job="sql", owner=MINE) == [
        ".sql-aaaaaaaaaaaa-checkpoints of an earlier run cannot be removed (Permission denied); remove it by hand"
    ]
