from __future__ import annotations

import signal

from largeforge.api.common import ErrorDetail
from largeforge.api.finetunejobstatus import CheckpointRecord
from largeforge.api.run import RunResult
from largeforge.jobs.report import Failure, Seen
from largeforge.jobs.verdict import Ending, explain_halvings, judge, root_cause, wants_smaller_batch

DIGEST = "d" * 64
GOOD = RunResult(outcome="Succeeded", run_digest=DIGEST)
BAD_DATA = RunResult(
    outcome="Failed", run_digest=DIGEST, error=ErrorDetail(reason="DatasetInvalid", message="line 3: ...")
)
CHECKPOINT = CheckpointRecord(step=20, uri="pvc://out/.sql-0123456789ab-checkpoints/checkpoint-20")


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


def test_sigterm_that_left_a_checkpoint_is_75_and_no_failure_of_the_run():
    reason, message, code = told(stopped=True, failures=[Failure(0, 75, 9)], checkpoint=CHECKPOINT)
    assert (reason, code) == ("Disrupted", 75)
    assert message == "stopped by SIGTERM; the next attempt goes on from step 20 and is not counted"


def test_sigterm_that_left_none_is_not_75():
    reason, message, code = told(status=-15, stopped=True, failures=[Failure(0, -15, 9)])
    assert (reason, code) == ("Disrupted", 143)
    assert message == "stopped by SIGTERM before there was a checkpoint; the next attempt begins anew"


def test_a_failed_attempt_tells_of_its_newest_checkpoint():
    result, _ = judge(ending(failures=[Failure(0, -9, 9)], memory_kills=1, checkpoint=CHECKPOINT))
    assert (result.error.reason, result.checkpoint) == ("OutOfMemory", CHECKPOINT)


def test_a_rank_out_of_gpu_memory_goes_before_those_that_failed_for_want_of_it():
    short = BAD_DATA.model_copy(update={"error": ErrorDetail(reason="OutOfGPUMemory", message="2 GiB")})
    lost = BAD_DATA.model_copy(update={"error": ErrorDetail(reason="TrainingFailed", message="connection closed")})
    result, code = judge(ending(failures=[Failure(0, 1, 8), Failure(1, 1, 9)], results={0: lost, 1: short}))
    assert (result.error.reason, code) == ("OutOfGPUMemory", 1)
    assert wants_smaller_batch(result)
    assert explain_halvings(result, 0) == result
    assert explain_halvings(result, 3).error.message == "with the micro-batch halved 3 times still: 2 GiB"


def test_a_kill_by_the_kernel_for_memory_names_the_remedy():
    reason, message, code = told(failures=[Failure(1, -9, 9)], memory_kills=1)
    assert (reason, code) == ("OutOfMemory", 137)
    assert message.startswith("rank 1 was killed for memory; lower spec.training.perDeviceTrainBatchSize")


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
