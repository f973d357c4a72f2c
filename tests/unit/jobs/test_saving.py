from __future__ import annotations

from largeforge.api.run import CheckpointSettings
from largeforge.jobs import stop
from largeforge.jobs.report import STATE_DIR
from largeforge.jobs.saving import Schedule, Stopwatch


def schedule(*moments, **changes):
    times = iter(moments)
    settings = {"path": "/c", "uri": "pvc://c/c", "every_steps": None, "every_minutes": None, "keep": 2, "resume": True}
    return Schedule(CheckpointSettings(**settings | changes), now=lambda: next(times))


def test_every_so_many_steps_one_is_due():
    assert [step for step in range(1, 11) if schedule(every_steps=4).due(step)] == [4, 8]


def test_after_so_many_minutes_the_next_step_is_the_last_one_without():
    clock = schedule(0.0, 59.9, 60.0, 60.0, 119.9, every_minutes=1)
    clock.begin()
    assert [clock.due(1), clock.due(2)] == [False, True]
    clock.begin()
    assert not clock.due(3)


def test_where_nothing_goes_on_from_it_none_is_due():
    assert not schedule(every_steps=1, resume=False).due(1)


def test_the_time_for_data_is_a_part_of_the_time_for_steps_and_pauses_count_for_neither():
    times = iter([0.0, 1.0, 3.0, 10.0, 20.0, 20.5, 21.0, 30.0])
    watch = Stopwatch(earlier=100.0, now=lambda: next(times))
    watch.begin()
    for _ in range(2):
        watch.data_begins()
        watch.data_ends()
        watch.step_ends()
    assert (watch.data_seconds, watch.steps_seconds) == (2.5, 10.0)
    assert watch.trained_seconds == 130.0


def test_the_wish_to_stop_is_seen_by_ranks_that_listen(tmp_path):
    environment = {STATE_DIR: str(tmp_path)}
    assert not stop.listening(tmp_path)
    stop.listen(environment)
    assert stop.listening(tmp_path)
    assert not stop.requested(environment)
    stop.request(tmp_path)
    assert stop.requested(environment)


def test_without_a_launcher_nobody_asks():
    stop.listen({})
    assert not stop.requested({})
