"""Examples that are nearly the same are left out together."""

from __future__ import annotations

import numpy as np

from largeforge.router.ridge import left_out, together
from largeforge.router.rows import Rows
from largeforge.router.twins import twins


def rows(*counts: int, nobody: int = 0) -> Rows:
    owners = [column for column, count in enumerate(counts) for _ in range(count)] + [-1] * nobody
    names = tuple(f"expert-{column}" for column in range(len(counts)))
    return Rows(names, tuple(f"text {n}" for n in range(len(owners))), np.array(owners, dtype=np.intp))


def alike(size: int, *pairs: tuple[int, int]):
    """A likeness of 1 for each of *pairs*."""
    found = np.eye(size)
    for a, b in pairs:
        found[a, b] = found[b, a] = 1.0
    return lambda begin, end: found[begin:end, begin:end]


def test_examples_that_are_alike_are_one_group_also_over_others():
    found = twins(rows(7, 2, nobody=1), alike(10, (1, 4), (4, 2)))
    assert found.groups.tolist() == [0, 1, 1, 3, 1, 5, 6, 7, 8, 9]
    assert found.judged.tolist() == list(range(9))


def test_examples_of_two_experts_are_no_twins_so_that_one_can_take_the_others():
    found = twins(rows(3, 3), alike(6, (2, 3)))
    assert found.groups.tolist() == list(range(6))


def test_an_expert_whose_examples_are_mostly_one_text_is_not_judged_by_them():
    found = twins(rows(5, 4), alike(9, (0, 1), (1, 2)))
    assert found.groups.tolist() == list(range(9))
    assert found.judged.tolist() == [3, 4, 5, 6, 7, 8]


def test_where_all_are_so_all_are_judged():
    assert twins(rows(2, 1), alike(3, (0, 1))).judged.tolist() == [2]
    assert twins(rows(2), alike(2, (0, 1))).judged.tolist() == [0, 1]


def test_leaving_a_group_out_is_learning_without_it():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 5))
    kernel, targets = features @ features.T, rng.normal(size=(12, 2))
    groups = np.array([0, 1, 1, 3, 4, 5, 6, 1, 8, 8, 10, 11])
    _, scores = left_out(kernel, targets, groups)
    for row in range(12):
        others = np.flatnonzero(groups != groups[row])
        alone, _ = left_out(kernel[np.ix_(others, others)], targets[others], others)
        np.testing.assert_allclose(scores[row], kernel[row, others] @ alone, rtol=1e-9)


def test_only_groups_of_more_than_one_are_left_out_together():
    assert [group.tolist() for group in together(np.array([0, 1, 1, 3, 0, 5]))] == [[0, 4], [1, 2]]
