"""Labels of the objects that we make."""

from __future__ import annotations

from largeforge.api.names import MANAGED_BY, MANAGER


def common_labels(*, name: str, component: str) -> dict[str, str]:
    """The labels of every object of ours; *name* is the parent's name, *component* what the object does for it.

    `managed-by` is what the operator's watches select by. A fresh dict for each call.
    """
    return {
        MANAGED_BY: MANAGER,
        "app.kubernetes.io/part-of": MANAGER,
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": name,
    }
