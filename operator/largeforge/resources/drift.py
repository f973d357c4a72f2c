"""Whether the cluster still has what we wrote."""

from __future__ import annotations

from typing import Any

from largeforge.resources.quantity import quantity


def covers(observed: Any, desired: Any) -> bool:
    """Whether *observed* says all that *desired* says; what it says beside (defaults, other owners' fields) is free.

    Lists are compared by position and must be equally long; quantities by value, as the API server rewrites them.
    An absent value equals an empty one.
    """
    if isinstance(desired, dict):
        seen = observed if isinstance(observed, dict) else {}
        return all(covers(seen.get(key), value) for key, value in desired.items())
    if isinstance(desired, list):
        seen_items = observed if isinstance(observed, list) else []
        return len(seen_items) == len(desired) and all(map(covers, seen_items, desired))
    if observed == desired:
        return True
    if observed is None:
        return desired in ("", False, 0)
    return _same_quantity(observed, desired)


def _same_quantity(observed: Any, desired: Any) -> bool:
    if not (isinstance(observed, str) and isinstance(desired, str)):
        return False
    try:
        return quantity(observed) == quantity(desired)
    except ValueError:
        return False
