from __future__ import annotations

from decimal import Decimal

import pytest

from largeforge.resources.drift import covers
from largeforge.resources.quantity import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("2k", "2000"),
        ("1Ki", "1024"),
        ("4Gi", str(4 * 2**30)),
        ("1E", "1e18"),
    ],
)
def test_quantities_are_numbers(text, number):
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "4GB", "-1", "1.2.3", "x"])
def test_what_is_no_quantity_is_named(text):
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("observed", "desired", "same"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"cpu": "1"}, {"cpu": "1000m"}, True),
        ({"cpu": "1"}, {"cpu": "2"}, False),
        ({"l": [{"name": "x", "extra": 1}]}, {"l": [{"name": "x"}]}, True),
        ({"l": [1, 2]}, {"l": [1]}, False),
        ({}, {"l": [], "m": {}, "s": "", "f": False}, True),
        (None, {"a": 1}, False),
        ({"a": {"b": "x"}}, {"a": {"b": "x", "c": {}}}, True),
    ],
)
def test_what_is_there_covers_what_is_wanted(observed, desired, same):
    assert covers(observed, desired) is same
