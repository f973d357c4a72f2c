from __future__ import annotations

from datetime import UTC, datetime

from largeforge.api.meta import Condition, condition, is_true, with_condition

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 1, 2, tzinfo=UTC)


def ready(status: str, *, at: datetime, reason: str = "Ready") -> Condition:
    return Condition(type="Ready", status=status, reason=reason, last_transition_time=at)


def test_the_transition_time_moves_only_when_the_status_does():
    first = with_condition([], ready("False", at=EARLY, reason="Waiting"))
    same = with_condition(first, ready("False", at=LATE, reason="Loading"))
    assert same == [ready("False", at=EARLY, reason="Loading")]
    assert with_condition(same, ready("True", at=LATE)) == [ready("True", at=LATE)]


def test_other_conditions_keep_their_place():
    loaded = Condition(type="Loaded", status="True", reason="Loaded")
    assert with_condition([ready("True", at=EARLY), loaded], ready("False", at=LATE)) == [
        ready("False", at=LATE),
        loaded,
    ]


def test_a_condition_that_was_never_set_is_not_true():
    assert condition([], "Ready") is None
    assert not is_true([], "Ready")
    assert is_true([ready("True", at=EARLY)], "Ready")
