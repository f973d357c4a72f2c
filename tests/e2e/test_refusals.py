"""After all the other tests: what the API server refused to our own accounts while they ran."""

from __future__ import annotations

import pytest

from dev import cluster
from dev.cluster.audit import Call, calls

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(cluster.audit_log() is None, reason="this cluster's API server writes no audit log"),
]


def ours() -> list[Call]:
    """The calls of the accounts that the chart makes: operator, routers, the hook."""
    log = cluster.audit_log()
    assert log is not None
    return [call for call in calls(log) if call.account.partition("/")[2].startswith("largeforge-")]


def test_operator_routers_and_hook_are_refused_nothing_that_they_ask_for():
    found = ours()
    asked = {call.account.partition("/")[2] for call in found}
    assert asked >= {"largeforge-operator", "largeforge-router", "largeforge-keys"}, "the log is that of the install"
    assert [call for call in found if call.refused] == []
