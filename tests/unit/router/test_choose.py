from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from largeforge.router.breaker import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, THRESHOLD, Breaker
from largeforge.router.choose import BEGINNING_BYTES, IMBALANCE, conversation, pick
from largeforge.router.scan import scan
from tests.unit.router.lab import chat

NOW = 1000.0
STEADY = settings(derandomize=True, deadline=None, database=None)


@dataclass(eq=False)
class Pod:
    number: int
    in_flight: int = 0
    foreign: int = 0
    fresh: bool = False
    breaker: Breaker = field(default_factory=Breaker)


def broken(number: int = 0, *, at: float = NOW, times: int = THRESHOLD):
    pod = Pod(number)
    for _ in range(times):
        pod.breaker.failed(at)
    return pod


def pods(*loads: int):
    return [Pod(n * 0x1234567890ABCDEF, load) for n, load in enumerate(loads, 1)]


@st.composite
def worlds(draw: st.DrawFn):
    found = []
    for number in draw(st.lists(st.integers(0, 2**64 - 1), max_size=6, unique=True)):
        pod = Pod(number, draw(st.integers(0, 20)), draw(st.integers(0, 20)), draw(st.booleans()))
        for _ in range(draw(st.integers(0, THRESHOLD + 1))):
            pod.breaker.failed(NOW - draw(st.floats(0, 60)))
        found.append(pod)
    return found


@STEADY
@given(candidates=worlds(), turn=st.integers(0, 99), key=st.none() | st.integers(0, 2**32 - 1), avoiding=st.booleans())
def test_the_pod_is_one_of_the_candidates_and_never_the_one_to_avoid(
    *, candidates: list[Pod], turn: int, key: int | None, avoiding: bool
):
    avoid = candidates[0] if avoiding and candidates else None
    chosen = pick(candidates, turn=turn, now=NOW, key=key, avoid=avoid)
    rest = [pod for pod in candidates if pod is not avoid]
    assert (chosen in rest) if rest else (chosen is None)


@STEADY
@given(worlds(), st.integers(0, 99), st.integers(0, 2**32 - 1))
def test_no_conversation_burdens_a_pod_beyond_the_bound(candidates: list[Pod], turn: int, key: int):
    chosen = pick(candidates, turn=turn, now=NOW, key=key)
    allowed = [pod for pod in candidates if pod.breaker.allows(NOW)]
    if chosen is None or not allowed:
        return
    fresh = all(pod.fresh for pod in allowed)
    loads = {id(pod): pod.in_flight + (pod.foreign if fresh else 0) for pod in allowed}
    bound = IMBALANCE * sum(loads.values()) / len(loads) + 1
    assert loads[id(chosen)] <= max(bound, min(loads.values()))


@STEADY
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8, unique=True), st.data())
def test_a_pod_that_leaves_moves_its_own_conversations_only(numbers: list[int], data: st.DataObject):
    candidates = [Pod(number) for number in numbers]
    gone = data.draw(st.sampled_from(candidates))
    left = [pod for pod in candidates if pod is not gone]
    for key in range(0, 2**32, 2**32 // 50):
        before = pick(candidates, turn=0, now=NOW, key=key)
        assert pick(left, turn=1, now=NOW, key=key) is before or before is gone


def test_conversations_are_spread_evenly_over_the_pods():
    found = Counter(pick(pods(0, 0, 0, 0), turn=0, now=NOW, key=n * 2_654_435_761 % 2**32).number for n in range(8000))
    assert all(1800 <= count <= 2200 for count in found.values())
    assert len(found) == 4


def test_a_conversation_goes_where_it_went_before_whatever_the_turn():
    candidates = pods(0, 1, 1)
    assert len({pick(candidates, turn=turn, now=NOW, key=77).number for turn in range(10)}) == 1


def test_a_conversation_leaves_its_pod_where_that_carries_too_much():
    candidates = pods(0, 0, 0)
    home = pick(candidates, turn=0, now=NOW, key=77)
    home.in_flight = 1
    assert pick(candidates, turn=0, now=NOW, key=77) is home
    home.in_flight = 2
    assert pick(candidates, turn=0, now=NOW, key=77) is not home


def test_the_engines_own_figure_counts_where_every_candidate_has_one():
    candidates = pods(1, 2)
    candidates[0].foreign = 5
    assert pick(candidates, turn=0, now=NOW) is candidates[0]
    for pod in candidates:
        pod.fresh = True
    assert pick(candidates, turn=0, now=NOW) is candidates[1]


def test_pods_with_as_little_take_turns_and_others_get_nothing():
    candidates = pods(0, 3, 0, 0)
    found = Counter(candidates.index(pick(candidates, turn=turn, now=NOW)) for turn in range(9))
    assert found == {0: 3, 2: 3, 3: 3}


def test_a_pod_that_failed_on_end_is_left_alone_until_its_pause_is_over():
    bad, good = broken(1), Pod(2, in_flight=9)
    assert pick([bad, good], turn=0, now=NOW) is good
    assert pick([bad, good], turn=0, now=NOW + FIRST_PAUSE_SECONDS) is bad


def test_only_one_request_at_a_time_finds_out():
    bad, good = broken(1), Pod(2)
    later = NOW + FIRST_PAUSE_SECONDS
    assert bad.breaker.started(later)
    assert pick([bad, good], turn=0, now=later) is good
    bad.breaker.undecided()
    assert bad.breaker.allows(later)


def test_where_all_have_failed_the_one_whose_pause_ends_first_is_tried():
    first, second = broken(1, at=NOW), broken(2, at=NOW - 0.5)
    assert pick([first, second], turn=0, now=NOW) is second
    assert pick([second], turn=0, now=NOW) is second


def test_the_pause_grows_with_each_failed_try_up_to_its_bound_and_success_forgets_it():
    breaker = broken().breaker
    pauses = []
    now = NOW
    for _ in range(8):
        pauses.append(breaker.open_until - now)
        now = breaker.open_until
        assert breaker.started(now)
        breaker.failed(now)
    assert pauses == [1, 2, 4, 8, 16, LAST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, LAST_PAUSE_SECONDS]
    breaker.succeeded()
    assert breaker.allows(now)
    breaker.failed(now)
    assert breaker.allows(now)


def test_failures_count_on_end_only():
    breaker = broken(times=THRESHOLD - 1).breaker
    breaker.succeeded()
    breaker.failed(NOW)
    assert breaker.allows(NOW)


SYSTEM = {"role": "system", "content": "be brief"}
FIRST = {"role": "user", "content": "hi"}


def key_of(*messages: object, route: str = "sql"):
    return conversation(route, scan(chat("", messages=messages)).messages)


def test_a_conversation_is_known_by_its_beginning_in_every_turn():
    assert key_of(SYSTEM, FIRST) == key_of(
        SYSTEM, FIRST, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "and now?"}
    )


@pytest.mark.parametrize(
    "other",
    [
        key_of(FIRST),
        key_of({"role": "system", "content": "be long"}, FIRST),
        key_of(SYSTEM, {"role": "user", "content": "ho"}),
        key_of(SYSTEM, FIRST, route="art"),
    ],
)
def test_other_beginnings_and_other_models_are_other_conversations(other: int):
    assert key_of(SYSTEM, FIRST) != other


def test_a_long_beginning_is_looked_at_up_to_a_bound():
    long = "x" * BEGINNING_BYTES
    assert key_of({"role": "user", "content": long + "a"}) == key_of({"role": "user", "content": long + "b"})


@pytest.mark.parametrize("messages", [[], [SYSTEM], "no list", [{"role": 3}]])
def test_without_a_user_there_is_no_conversation(messages: object):
    assert conversation("sql", scan(chat("", messages=messages)).messages) is None
