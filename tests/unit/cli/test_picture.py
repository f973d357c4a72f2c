"""What is drawn in a terminal."""

import io
import itertools
import math

from rich.console import Console

from largeforge.api.finetunejob import FineTuneJob
from largeforge.cli.plot import plot
from largeforge.cli.progress import Course, follow, picture
from largeforge.kube.cluster import WatchEvent
from tests.unit.cli.stage import TellingCluster, job, said

RUN = {"number": 1, "digest": "d", "jobName": "sql-r1-a1"}


def at(step, loss, *, attempt="sql-r1-a1"):
    progress = {"percent": step, "step": step, "totalSteps": 100, "loss": loss, "tokensPerSecond": 900, "eta": "2m"}
    return FineTuneJob.model_validate(
        job(status={"phase": "Running", "message": "training", "run": RUN | {"jobName": attempt}, "progress": progress})
    )


def test_a_loss_that_falls_runs_from_the_upper_left_to_the_lower_right():
    drawn = plot([(step, 40 - step) for step in range(40)], width=29, height=4)
    assert [len(line) for line in drawn] == [29] * 4
    assert [line[:9].strip() for line in drawn] == ["40 ┤", "┤", "┤", "1 ┤"]
    filled = [[n for n, dots in enumerate(line[9:]) if dots != "⠀"] for line in drawn]
    assert filled[0][0] == 0
    assert filled[-1][-1] == 19
    assert all(above[0] < below[0] for above, below in itertools.pairwise(filled))


def test_two_points_are_joined_by_a_line_without_a_gap():
    drawn = plot([(0, 1.0), (10, 0.0)], width=19, height=2)
    columns = list(zip(*(line[9:] for line in drawn), strict=True))
    assert all(any(dots != "⠀" for dots in column) for column in columns)


def test_what_cannot_be_drawn_is_left_out():
    assert plot([], width=40, height=4) == []
    assert plot([(1, 2.0)], width=40, height=4) == []
    assert plot([(1, 2.0), (2, math.nan)], width=40, height=4) == []
    assert plot([(1, 2.0), (2, 1.0)], width=5, height=4) == []
    level = plot([(1, 2.0), (2, 2.0)], width=19, height=2)
    assert level[0].startswith("      2 ┤")


def test_a_course_takes_the_log_and_the_status_and_begins_anew_with_the_next_attempt():
    course = Course()
    course.note(at(3, "1.2"))
    course.note_log(["step 1/100 loss 2.000 lr 1e-4 eta 9s", "eval_loss 1.21", "step 2/100 loss 1.500 lr 1e-4 eta 8s"])
    assert course.points == [(1, 2.0), (2, 1.5), (3, 1.2)]
    course.note(at(4, "1.1", attempt="sql-r1-a2"))
    assert course.points == [(4, 1.1)]


def test_the_picture_has_bar_figures_and_losses_and_fits_the_terminal():
    course = Course()
    for step in range(1, 51):
        course.note(at(step, f"{3 - step / 25:.2f}"))
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    console.print(picture(at(50, "1.0"), course, width=60))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "Running: training"
    assert "━" in lines[1]
    assert lines[2] == "step 50/100, loss 1.0, 900 tokens/s, ETA 2m"
    assert len(lines) == 11
    assert max(map(len, lines)) <= 60


async def test_in_a_terminal_one_picture_refreshes_until_the_job_has_ended():
    def now(step, loss):
        return at(step, loss).manifest() | {"metadata": job()["metadata"]}

    status = {"phase": "Complete", "message": "trained", "progress": {"percent": 100}}
    done = job(status=status | {"conditions": [said("Complete", "Succeeded")]})
    scenes = [WatchEvent("MODIFIED", found) for found in (now(50, "1.5"), now(75, "1.2"), done)]
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    await follow(TellingCluster(now(25, "2.0"), scenes=scenes), now(25, "2.0"), console=console, once=False)
    shown = console.file.getvalue()
    assert "step 75/100, loss 1.2" in shown
    assert "⠀" in shown
    last = shown.rpartition("Complete: trained")[2]
    assert "━" in last
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and there again
