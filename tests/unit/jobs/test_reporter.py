from __future__ import annotations

import json
import logging
import threading
import time
from datetime import UTC, datetime

from largeforge.jobs.reporter import CLOSE_SECONDS, Reporter, Snapshot

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
DEADLINE = 10.0


def snapshot(step, total=60, **more):
    return Snapshot(**{"step": step, "total_steps": total, "epoch": 0.2, "loss": 1.8, "learning_rate": 1e-4} | more)


class Wire:
    """Takes bodies; a post waits while it is closed."""

    def __init__(self, *, open_=True):
        self.steps = []
        self.gate = threading.Event()
        self.came = threading.Condition()
        if open_:
            self.gate.set()

    def __call__(self, body):
        metrics = {m["name"]: m["value"] for m in json.loads(body)["trainerStatus"]["metrics"]}
        with self.came:
            self.steps.append(int(metrics["current_step"]))
            self.came.notify_all()
        assert self.gate.wait(DEADLINE)

    def wait(self, count):
        with self.came:
            assert self.came.wait_for(lambda: len(self.steps) >= count, DEADLINE), self.steps


def test_the_body_is_kubeflows_and_numbers_only():
    body = snapshot(12, tokens_per_second=1234.56, eta_seconds=41.4, eval_loss=float("nan"), checkpoint_step=10).body(
        now=NOW
    )
    assert json.loads(body) == {
        "trainerStatus": {
            "progressPercentage": 20,
            "estimatedRemainingSeconds": 41,
            "metrics": [
                {"name": "current_step", "value": "12"},
                {"name": "total_steps", "value": "60"},
                {"name": "current_epoch", "value": "0.2"},
                {"name": "loss", "value": "1.8"},
                {"name": "learning_rate", "value": "0.0001"},
                {"name": "tokens_per_second", "value": "1234.56"},
                {"name": "checkpoint_step", "value": "10"},
            ],
            "lastUpdatedTime": "2026-11-25T12:00:00.000000+00:00",
        }
    }


def test_an_estimate_that_is_no_number_is_left_out():
    status = json.loads(snapshot(1, eta_seconds=float("inf")).body(now=NOW))["trainerStatus"]
    assert "estimatedRemainingSeconds" not in status


def test_the_first_is_posted_at_once_and_the_newest_wins_what_comes_before_its_time():
    wire = Wire()
    reporter = Reporter(wire, period=DEADLINE)
    reporter.update(snapshot(1))
    wire.wait(1)
    for step in range(2, 50):
        reporter.update(snapshot(step))
    reporter.close()
    assert wire.steps == [1, 49]


def test_the_next_is_posted_when_its_time_has_come():
    wire = Wire()
    reporter = Reporter(wire, period=0.01)
    reporter.update(snapshot(1))
    wire.wait(1)
    reporter.update(snapshot(2))
    wire.wait(2)
    reporter.close()
    assert wire.steps == [1, 2]


def test_the_last_step_does_not_wait():
    wire = Wire()
    reporter = Reporter(wire, period=DEADLINE * 10)
    reporter.update(snapshot(59))
    wire.wait(1)
    reporter.update(snapshot(60))
    wire.wait(2)
    reporter.close()
    assert wire.steps == [59, 60]


def test_a_post_that_hangs_holds_up_no_step_and_the_end_for_two_seconds_at_most():
    wire = Wire(open_=False)
    reporter = Reporter(wire, period=0.01)
    reporter.update(snapshot(1))
    wire.wait(1)
    began = time.monotonic()
    for step in range(2, 1000):
        reporter.update(snapshot(step))
    assert time.monotonic() - began < 1.0
    reporter.close()
    assert CLOSE_SECONDS <= time.monotonic() - began < CLOSE_SECONDS + 2
    wire.gate.set()


def test_nothing_is_posted_after_the_end():
    wire = Wire()
    reporter = Reporter(wire)
    reporter.update(snapshot(1))
    reporter.close()
    reporter.update(snapshot(2))
    reporter.close()
    assert wire.steps == [1]


def test_trouble_is_one_line_in_a_minute_and_no_exception(caplog):
    failed = threading.Semaphore(0)

    def post(_):
        failed.release()
        raise ConnectionRefusedError("nobody there")

    reporter = Reporter(post, period=0.0)
    with caplog.at_level(logging.WARNING):
        for step in range(1, 4):
            reporter.update(snapshot(step))
            assert failed.acquire(timeout=DEADLINE)
        reporter.close()
    assert [r.getMessage() for r in caplog.records] == [
        "progress was not posted: nobody there; training goes on, status is late"
    ]


def test_without_an_address_nothing_is_started():
    reporter = Reporter.from_environment({})
    reporter.update(snapshot(1))
    reporter.close()
    assert reporter._thread is None


def test_a_token_is_never_sent_in_the_clear(caplog):
    reporter = Reporter.from_environment({"LARGEFORGE_PROGRESS_URL": "http://localhost/v1/progress"})
    with caplog.at_level(logging.WARNING):
        reporter.update(snapshot(1))
        reporter.close()
    assert "LARGEFORGE_PROGRESS_URL must begin with https" in caplog.text


def test_a_missing_token_is_trouble_and_no_exception(tmp_path, caplog):
    environment = {"LARGEFORGE_PROGRESS_URL": "https://localhost:1/v1/progress"}
    reporter = Reporter.from_environment(environment, ca_file=tmp_path / "ca", token_file=tmp_path / "token")
    with caplog.at_level(logging.WARNING):
        reporter.update(snapshot(1))
        reporter.close()
    assert "No such file" in caplog.text
