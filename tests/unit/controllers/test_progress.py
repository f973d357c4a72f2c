from __future__ import annotations

import json

import pytest

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import Progress
from largeforge.controllers.progress import duration, metrics_of, parse, progress_at_end, progress_of, summary
from tests.unit.progress import post
from tests.unit.training import NOW


def test_a_post_becomes_what_the_columns_show():
    posted = parse(post(current_epoch=0.4712, tokens_per_second="1234.6", learning_rate=1.9e-4, checkpoint_step=100))
    assert progress_of(posted, now=NOW) == Progress(
        percent=30,
        step=120,
        total_steps=400,
        epoch="0.47",
        eta_seconds=720,
        tokens_per_second=1235,
        loss="1.832",
        summary="30% 120/400",
        eta="12m",
        last_update_time=NOW,
    )
    assert metrics_of(posted) == [
        Metric(name="loss", value="1.832"),
        Metric(name="learning_rate", value="0.00019"),
        Metric(name="checkpoint_step", value="100"),
    ]


def test_the_first_post_of_kubeflows_callback_is_understood():
    body = {"trainerStatus": {"progressPercentage": 0, "metrics": [{"name": "total_steps", "value": "400"}]}}
    progress = progress_of(parse(json.dumps(body).encode()), now=NOW)
    assert (progress.percent, progress.step, progress.total_steps, progress.summary) == (0, None, 400, "0%")


def test_the_last_step_of_kubeflows_callback_is_a_hundred_percent_by_the_steps():
    body = json.loads(post(400, 400))
    body["trainerStatus"]["progressPercentage"] = 99
    assert parse(json.dumps(body).encode()).last


def test_metrics_that_are_on_no_list_are_passed_over():
    posted = parse(post(entropy="nan", password="hunter2"))
    assert [m.name for m in metrics_of(posted)] == ["loss"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no JSON", "Invalid JSON"),
        (b"[]", "object"),
        (b"{}", "trainerStatus"),
        (post(loss="nan"), "loss: the value is no finite number"),
        (post(loss="inf"), "loss: the value is no finite number"),
        (post(loss="words"), "loss: the value is no finite number"),
        (post(step=-1), "current_step: the value is no finite number in its range"),
        (post(total=10**13), "total_steps: the value is no finite number in its range"),
        (post(step=401), "current_step: 401 is above total_steps 400"),
        (post(eta=-5), "estimatedRemainingSeconds"),
        (post(loss="1" * 65), "metrics.2.value"),
        (post(**{f"m{i}": 1 for i in range(257)}), "metrics"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(body, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse(body)
    assert "\n" not in str(caught.value)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (12000, "3h20m"), (187200, "2d4h"), (10**12, "11574074d1h")],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text
    assert len(text) <= 16


def test_a_summary_fits_its_field():
    assert summary(100, 10**12, 10**12) == "100% 1000000000000/1000000000000"
    assert summary(None, None, 400) is None


def test_at_the_end_all_steps_are_done_and_the_held_out_loss_is_shown():
    before = progress_of(parse(post()), now=NOW)
    later = NOW.replace(hour=13)
    metrics = [Metric(name="train_loss", value="1.5"), Metric(name="eval_loss", value="1.25")]
    done = progress_at_end(before, metrics, now=later)
    assert (done.percent, done.step, done.summary, done.loss, done.eta) == (100, 400, "100% 400/400", "1.25", None)
    assert progress_at_end(None, [], now=later) == Progress(percent=100, summary="100%", last_update_time=later)
