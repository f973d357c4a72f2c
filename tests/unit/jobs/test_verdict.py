from __future__ import annotations

import signal

from largeforge.api.common import ErrorDetail
from largeforge.api.run import RunResult
from largeforge.jobs.report import Failure, Seen
from largeforge.jobs.verdict import Ending, judge, root_cause

DIGEST = "d" * 64
GOOD = RunResult(outcome="Succeeded", run_digest=DIGEST)
BAD_DATA = RunResult(
    outcome="Failed", run_digest=DIGEST, error=ErrorDetail(reason="DatasetInvalid", message="line 3: ...")
)


def ending(*, failures=(), error="", **changes):
    values = {
        "run_digest": DIGEST,
        "status": 1,
        "stopped": False,
        "seen": Seen(failures, error),
        "results": {},
        "memory_kills": 0,
    }
    return Ending(**values | changes)


def told(**changes):
    result, code = judge(ending(**changes))
    assert result.run_digest == DIGEST
    return result.error.reason, result.error.message, code


def test_the_first_ranks_result_is_the_runs():
    assert judge(ending(status=0, results={0: GOOD, 1: GOOD})) == (GOOD, 0)


def test_an_artifact_that_is_in_place_stays_a_success_whatever_came_after():
    assert judge(ending(status=-15, stopped=True, results={0: GOOD})) == (GOOD, 0)
    assert judge(ending(failures=[Failure(1, -6, 9)], results={0: GOOD})) == (GOOD, 0)


def test_a_workers_own_code_and_words_are_handed_out():
    assert judge(ending(failures=[Failure(1, 65, 9)], results={1: BAD_DATA})) == (BAD_DATA, 65)


def test_words_of_another_rank_serve_where_the_failed_one_left_none():
    assert judge(ending(failures=[Failure(1, 65, 9)], results={0: BAD_DATA})) == (BAD_DATA, 65)


def test_sigterm_is_75_and_no_failure_of_the_run():
    reason, message, code = told(status=-15, stopped=True, failures=[Failure(0, -15, 9)])
    assert (reason, code) == ("Disrupted", 75)
    assert message == "stopped by SIGTERM before it was complete; the next attempt is not counted"


def test_a_kill_by_the_kernel_for_memory_names_the_remedy():
    reason, message, code = told(failures=[Failure(1, -9, 9)], memory_kills=1)
    assert (reason, code) == ("OutOfMemory", 137)
    assert message.startswith("rank 1 was killed for memory; lower training.perDeviceTrainBatchSize")


def test_sigkill_without_a_memory_kill_is_not_blamed_on_memory():
    told_so = told(failures=[Failure(1, -9, 9)], memory_kills=0)
    assert told_so == ("TrainingFailed", "rank 1 was killed by SIGKILL; see the pod's log", 137)


def test_where_the_control_group_is_silent_sigkill_is_taken_for_memory():
    assert told(failures=[Failure(1, -9, 9)], memory_kills=None)[0] == "OutOfMemory"


def test_a_signals_name_is_told_and_128_added():
    told_so = told(failures=[Failure(0, -signal.SIGSEGV, 9)])
    assert told_so == ("TrainingFailed", "rank 0 was killed by SIGSEGV; see the pod's log", 139)


def test_torchrun_that_was_killed_itself_or_failed_early_still_gives_words():
    assert told(status=-9, memory_kills=1)[::2] == ("OutOfMemory", 137)
    assert told(status=2) == ("TrainingFailed", "torchrun ended with 2 before a worker did; see the pod's log", 2)
    assert told(error="RendezvousConnectionError: no") == (
        "TrainingFailed",
        "torchrun: RendezvousConnectionError: no",
        1,
    )
    assert told(failures=[Failure(0, 3, 9)]) == (
        "TrainingFailed",
        "rank 0 ended with 3 and left no result; see the pod's log",
        3,
    )


def test_an_exit_0_without_a_result_is_a_failure():
    told_so = told(status=0)
    assert told_so == ("TrainingFailed", "all processes ended with 0, but rank 0 left no result; see the pod's log", 1)


def test_the_root_cause_is_the_users_error_then_the_kill_then_the_earliest():
    user, killed, late, early = Failure(3, 64, 9), Failure(2, -9, 9), Failure(0, 1, 9), Failure(1, 1, 8)
    assert root_cause([late, early, killed, user]) == user
    assert root_cause([late, early, killed]) == killed
    assert root_cause([late, early]) == early
    assert root_cause([late, Failure(1, 1, 9)]) == late
    assert root_cause([]) is None
