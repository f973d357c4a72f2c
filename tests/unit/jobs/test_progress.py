from __future__ import annotations

import pytest

from largeforge.jobs.errors import RunError
from largeforge.jobs.progress import Progress, eval_line, step_line


def test_the_lines_are_those_of_the_contract():
    line = step_line(12, 60, loss=1.8321, learning_rate=1.9e-4, eta_seconds=41.2)
    assert line == "step 12/60 loss 1.832 lr 1.9e-04 eta 41s"
    assert eval_line(1.2149) == "eval_loss 1.21"


def lines(*moments, total=4):
    said = []
    clock = iter([0.0, *moments])
    progress = Progress(said.append, now=lambda: next(clock))
    progress.begin()
    for step in range(1, len(moments) + 1):
        progress.step({"loss": 1.0, "learning_rate": 1e-4}, step=step, total=total)
    return said


def test_the_time_that_is_left_follows_from_the_steps_so_far():
    assert [line.rpartition("eta ")[2] for line in lines(2.0, 4.0, 9.0, 12.0)] == ["6s", "4s", "3s", "0s"]


def test_fast_steps_are_told_a_few_times_a_second_and_the_last_one_always():
    assert [line.split()[1] for line in lines(0.1, 0.2, 0.5, 0.6)] == ["1/4", "3/4", "4/4"]


def test_a_log_entry_without_a_loss_is_no_step():
    progress = Progress(pytest.fail)
    progress.step({"eval_loss": 1.0}, step=1, total=2)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_with_the_remedy(loss):
    with pytest.raises(RunError, match=r"at step 3; lower training\.learningRate"):
        Progress(pytest.fail).step({"loss": loss}, step=3, total=9)
