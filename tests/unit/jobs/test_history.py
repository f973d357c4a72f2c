from __future__ import annotations

import math

import pytest

from largeforge.jobs import history
from largeforge.jobs.history import Best

LOG = [
    {"step": 0, "eval_loss": 3.0, "eval_num_tokens": 0},
    {"step": 2, "loss": 2.5, "learning_rate": 1e-4, "num_tokens": 100},
    {"step": 4, "loss": 1.5, "learning_rate": 5e-5, "num_tokens": 210},
    {"step": 4, "eval_loss": 2.0, "eval_num_tokens": 210},
    {"step": 5, "loss": 1.0, "learning_rate": 1e-5, "num_tokens": 260},
    {"step": 5, "train_loss": 1.8, "train_runtime": 9.0},
]


def evaluations(*losses):
    return [{"step": 10 * index, "eval_loss": loss} for index, loss in enumerate(losses)]


def test_the_log_holds_losses_rates_and_tokens():
    assert history.training_losses(LOG) == [(2, 2.5), (4, 1.5), (5, 1.0)]
    assert history.learning_rates(LOG) == [(2, 1e-4), (4, 5e-5), (5, 1e-5)]
    assert history.held_out_losses(LOG) == [(0, 3.0), (4, 2.0)]
    assert history.tokens(LOG) == 260


def test_an_entry_counts_for_the_steps_since_the_one_before():
    assert history.mean_loss(LOG) == pytest.approx((2 * 2.5 + 2 * 1.5 + 1.0) / 5)


def test_an_empty_log_has_none():
    assert (history.mean_loss([]), history.tokens([]), history.best([], threshold=0)) == (None, 0, None)


def test_the_base_itself_is_not_the_best():
    assert history.best(evaluations(1.0, 2.0), threshold=0) == Best(10, 2.0, 0)


@pytest.mark.parametrize(
    ("losses", "threshold", "expected"),
    [
        ((3.0, 2.0, 1.0), 0, Best(20, 1.0, 0)),
        ((3.0, 1.0, 2.0, 1.5), 0, Best(10, 1.0, 2)),
        ((3.0, 2.0, 1.95, 1.9), 0.2, Best(30, 1.9, 2)),
        ((3.0, 2.0, 1.95, 1.7), 0.2, Best(30, 1.7, 0)),
        ((3.0, 1.0, 1.0), 0, Best(10, 1.0, 1)),
    ],
)
def test_the_best_and_how_long_ago_it_got_better(losses, threshold, expected):
    assert history.best(evaluations(*losses), threshold=threshold) == expected


def test_perplexity_is_the_exponential_and_never_an_error():
    assert history.perplexity(0.0) == 1.0
    assert history.perplexity(1e6) == math.inf
