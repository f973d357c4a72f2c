from __future__ import annotations

import pytest

from largeforge.jobs.errors import RunError
from largeforge.jobs.progress import Progress, check_loss, eval_line, step_line


def test_the_lines_are_those_of_the_contract():
    line = step_line(12, 60, loss=1.8321, learning_rate=1.9e-4, eta_seconds=41.2)
    assert line == "step 12/60 loss 1.832 lr 1.9e-04 eta 41s"
    assert eval_line(1.2149) == "eval_loss 1.21"


def clock(*moments):
    times = iter(moments)
    return lambda: next(times)


def test_the_time_that_is_left_follows_from_the_newest_steps():
    progress = Progress(pytest.fail, now=clock(0.0, *(100.0 + step for step in range(60))))
    progress.begin(0)
    for step in range(1, 61):
        progress.done(step)
    assert progress.eta_seconds(70) == 10.0


def test_a_resumed_run_is_not_credited_with_the_steps_before_it():
    progress = Progress(pytest.fail, now=clock(0.0, 3.0))
    progress.begin(50)
    assert progress.eta_seconds(60) == 0.0
    progress.done(51)
    assert progress.eta_seconds(60) == 27.0


def test_fast_steps_are_told_a_few_times_a_second_and_the_last_one_always():
    said = []
    progress = Progress(said.append, now=clock(0.0, 0.1, 0.2, 0.5, 0.6))
    progress.begin(0)
    for step in range(1, 5):
        progress.step(step, 4, loss=1.0, learning_rate=1e-4)
    assert [line.split()[1] for line in said] == ["1/4", "3/4", "4/4"]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_with_the_remedy(loss):
    with pytest.raises(RunError, match=r"at step 3; lower spec\.training\.learningRate"):
        check_loss(loss, step=3)
    with pytest.raises(RunError, match=r"^the held-out loss is .*; lower spec\.training\.learningRate"):
        Progress(pytest.fail).evaluated(loss)
