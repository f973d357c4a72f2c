from __future__ import annotations

from types import SimpleNamespace

import pytest

from largeforge.jobs import checkpoints, probing, stop, strategy, watch
from largeforge.jobs.progress import Progress
from largeforge.jobs.saving import Schedule, Stopwatch
from tests.unit.jobs.runs import config

FACTS = "what is in force"


class Posted:
    """In the reporter's place."""

    def __init__(self):
        self.snapshots = []

    def update(self, snapshot):
        self.snapshots.append(snapshot)


@pytest.fixture
def attempt(tmp_path, monkeypatch):
    """An attempt of one rank without torch, at its step 0."""
    monkeypatch.setattr(strategy, "reshard", lambda _: None)
    monkeypatch.setattr(probing, "answers", lambda *_: {})
    monkeypatch.setenv("LARGEFORGE_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()

    def begin(*, training=None, first=True, **checkpoint):
        folder = tmp_path / ".sql-0123456789ab-checkpoints"
        run = config(tmp_path, training=training)
        settings = {"every_minutes": None, **checkpoint}
        run = run.model_copy(update={"checkpoint": run.checkpoint.model_copy(update=settings)})
        checkpoints.begin(folder, resume=True)
        accelerator = SimpleNamespace(num_processes=1, wait_for_everyone=lambda: None)
        state = SimpleNamespace(global_step=0, max_steps=10, epoch=0.0, log_history=[])
        trainer = SimpleNamespace(accelerator=accelerator, state=state, model=object(), args=None)
        made = watch.Attempt(
            config=run,
            folder=folder,
            first=first,
            progress=Progress(lambda _: None),
            reporter=Posted(),
            stopwatch=Stopwatch(),
            schedule=Schedule(run.checkpoint),
            read_back=lambda: FACTS,
            prompts={},
        )
        return Driver(trainer, made)

    return begin


class Driver:
    """Calls a watcher as the trainer does."""

    def __init__(self, trainer, attempt):
        self.attempt, self.state, self.trainer = attempt, trainer.state, trainer
        self.watcher = watch.Watcher(trainer, attempt)
        self.watcher.on_train_begin(None, self.state, None)

    def step(self, *, loss=1.0, eval_loss=None):
        """One step; returns the trainer's control after it."""
        control = SimpleNamespace(should_save=False, should_training_stop=False, should_evaluate=eval_loss is not None)
        self.watcher.on_step_begin(None, self.state, control)
        self.state.global_step += 1
        self.watcher.on_step_end(None, self.state, control)
        logs = {"loss": loss, "learning_rate": 1e-4, "num_tokens": 100.0 * self.state.global_step}
        self.state.log_history.append({"step": self.state.global_step, **logs})
        self.watcher.on_log(None, self.state, control, logs)
        if control.should_evaluate:
            self.state.log_history.append({"step": self.state.global_step, "eval_loss": eval_loss})
            self.watcher.on_evaluate(None, self.state, control, {"eval_loss": eval_loss})
        if control.should_save:
            path = checkpoints.path_of(self.attempt.folder, self.state.global_step)
            path.mkdir()
            (path / "optimizer.pt").write_bytes(b"state")
            self.watcher.on_save(None, self.state, control)
        return control

    @property
    def saved(self):
        return [checkpoint.manifest.step for checkpoint in checkpoints.complete(self.attempt.folder)]


def test_what_is_in_force_is_read_back_before_and_after_the_first_step(attempt):
    run = attempt()
    assert run.attempt.facts == FACTS
    run.attempt.read_back = lambda: "changed"
    run.step()
    assert run.attempt.facts == "changed"


def test_checkpoints_are_sealed_and_the_newest_are_kept(attempt):
    run = attempt(every_steps=2, keep=2)
    for _ in range(9):
        run.step()
    assert run.saved == [8, 6]
    assert run.attempt.saved_step == 8


def test_at_the_very_end_none_is_saved_because_the_artifact_follows(attempt):
    run = attempt(every_steps=5)
    for _ in range(10):
        run.step()
    assert run.saved == [5]


def test_a_wish_to_stop_is_saved_and_ends_training_without_another_evaluation(attempt, tmp_path):
    run = attempt()
    run.step()
    stop.request(tmp_path / "state")
    control = run.step(eval_loss=2.0)
    assert (control.should_training_stop, control.should_evaluate, run.attempt.stopped) == (True, False, True)
    assert run.saved == [2]


def test_where_nothing_will_go_on_from_it_a_wish_to_stop_saves_nothing(attempt, tmp_path):
    run = attempt(resume=False)
    stop.request(tmp_path / "state")
    assert run.step().should_training_stop
    assert run.saved == []


def test_after_the_last_step_a_wish_to_stop_no_longer_counts(attempt, tmp_path):
    run = attempt()
    for _ in range(9):
        run.step()
    stop.request(tmp_path / "state")
    assert not run.step().should_training_stop
    assert not run.attempt.stopped


def test_an_evaluation_is_left_in_its_middle(attempt, tmp_path):
    run = attempt()
    stop.request(tmp_path / "state")
    for _ in range(7):
        run.watcher.on_prediction_step(None, run.state, None)
    with pytest.raises(stop.StoppedError):
        run.watcher.on_prediction_step(None, run.state, None)


def test_the_evaluation_after_training_is_not(attempt, tmp_path):
    run = attempt()
    run.watcher.on_train_end(None, run.state, None)
    stop.request(tmp_path / "state")
    for _ in range(100):
        run.watcher.on_prediction_step(None, run.state, None)
    assert not run.attempt.stopped


EARLY = {"eval_steps": 1, "early_stopping": {"patience": 2, "threshold": 0}}


def test_the_best_weights_are_saved_and_kept_until_training_stops_early(attempt):
    run = attempt(training=EARLY, keep=1)
    controls = [run.step(eval_loss=loss) for loss in (3.0, 2.0, 2.5, 2.6)]
    assert [control.should_training_stop for control in controls] == [False, False, False, True]
    assert run.saved == [2]


def test_a_newer_checkpoint_does_not_push_the_best_one_out(attempt):
    run = attempt(training={**EARLY, "early_stopping": {"patience": 9, "threshold": 0}}, keep=1, every_steps=1)
    for loss in (3.0, 2.0, 2.5, 2.6):
        run.step(eval_loss=loss)
    assert run.saved == [4, 2]


def test_progress_is_posted_by_the_first_rank_alone(attempt):
    run, other = attempt(every_steps=1), attempt(first=False)
    run.step(loss=1.5)
    run.step(loss=1.25, eval_loss=2.0)
    other.step()
    newest = run.attempt.reporter.snapshots[-1]
    assert (newest.step, newest.total_steps, newest.loss, newest.checkpoint_step) == (2, 10, 1.25, 1)
    assert other.attempt.reporter.snapshots == []


def test_a_resumed_attempt_counts_on_and_measures_its_own_speed(attempt):
    run = attempt()
    run.state.log_history.append({"step": 4, "loss": 1.0, "num_tokens": 400.0})
    run.state.global_step = 4
    run.watcher.on_train_begin(None, run.state, None)
    assert run.trainer._total_train_tokens == 400
    run.step()
    assert run.attempt.tokens(run.state) == 100


def test_the_next_attempt_learns_how_far_this_one_was(attempt):
    run = attempt()
    run.attempt.stopwatch.earlier = 50.0
    run.step()
    run.attempt.write_journal(1, always=True)
    journal = checkpoints.read_journal(run.attempt.folder)
    assert journal.step == 1
    assert journal.trained_seconds >= 50.0
