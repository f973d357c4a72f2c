from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.wire import Wire

# No shrinking: what is wrong here shows by a deadline, and each try would wait for it.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def test_no_order_of_events_leaks_or_ends_a_request_twice() -> None:
    run_state_machine_as_test(Wire, settings=settings(max_examples=30, stateful_step_count=25, phases=PHASES))


@pytest.mark.long
def test_no_order_of_events_leaks_or_ends_a_request_twice_in_hundreds_more() -> None:
    run_state_machine_as_test(
        Wire, settings=settings(max_examples=300, stateful_step_count=60, derandomize=False, phases=PHASES)
    )
