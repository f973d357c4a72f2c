from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from largeforge.api.common import ErrorDetail
from largeforge.api.deliver import DeliverResult
from largeforge.api.inspect import InspectResult, ModelFacts
from largeforge.controllers.handlers import Links, wakes
from largeforge.controllers.inspection import JOB_NAME_LABEL, Pending, Question, Seen, decide, is_known, look
from largeforge.controllers.podstate import Problem
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import INFERENCESERVICES, JOBS, PODS
from largeforge.resources.deliver import deliver_config, deliver_job
from largeforge.resources.inspect import inspect_config, inspect_job
from tests.unit.errands import DELIVERY, EXPERT, HERE, MODEL, SERVICE, as_made, over, pod
from tests.unit.fakes import FakeCluster
from tests.unit.training import NOW

CONFIG = inspect_config(MODEL)
JOB = inspect_job(MODEL, SERVICE, installation=HERE)
QUESTION = Question(JOB, CONFIG, InspectResult)
FACTS = ModelFacts(request=CONFIG.request, digest="b" * 64, layers=30)
ANSWER = InspectResult(outcome="Succeeded", request=CONFIG.request, model=FACTS)
WRONG = ErrorDetail(reason="ArtifactNotFound", message="pvc://models/base: the folder is empty", field="spec.model.uri")
REFUSAL = InspectResult(outcome="Failed", request=CONFIG.request, error=WRONG)


def failed(*, ago=0.0, message="Job has reached the specified backoff limit"):
    return as_made(JOB, conditions=[over("Failed", at=NOW - timedelta(seconds=ago), message=message)])


def step(job=None, *pods, **changes):
    return decide(replace(QUESTION, **changes), Seen(job, pods), now=NOW)


def test_a_question_makes_its_job_once():
    first = step()
    assert first.create == [JOB]
    assert first.state == Pending("Inspecting", f"Job {JOB['metadata']['name']!r} reads the files")
    second = step(as_made(JOB))
    assert (second.create, second.delete) == ((), ())
    assert isinstance(second.state, Pending)


def test_the_answer_is_taken_before_the_jobs_controller_has_seen_it():
    assert step(as_made(JOB), pod(ANSWER.message())).state == ANSWER


def test_a_deliverys_answer_is_one_too():
    config = deliver_config(DELIVERY)
    question = Question(deliver_job(DELIVERY, EXPERT, installation=HERE), config, DeliverResult)
    done = DeliverResult(outcome="Succeeded", request=config.request, uri=str(DELIVERY.target))
    assert decide(question, Seen(as_made(question.job), [pod(done.message())]), now=NOW).state == done


@pytest.mark.parametrize(
    "message",
    [
        InspectResult(outcome="Succeeded", request="e" * 64, model=FACTS).message(),
        "not JSON",
        '{"outcome": "Succeeded"}',
        "[" * 5000,
        "null",
    ],
)
def test_what_answers_another_question_or_is_no_answer_is_none(message):
    assert isinstance(step(as_made(JOB), pod(message)).state, Pending)


def test_a_pod_that_the_job_does_not_control_says_nothing():
    assert isinstance(step(as_made(JOB), pod(ANSWER.message(), uid="another")).state, Pending)


def test_the_newest_answer_counts():
    old = pod(REFUSAL.message(), code=1, created="2026-11-25T11:00:00Z")
    assert step(as_made(JOB), old, pod(ANSWER.message(), name="b")).state == ANSWER


def test_a_failure_is_told_in_the_pods_own_words():
    found = step(failed(), pod(REFUSAL.message(), code=65))
    assert found.state == Problem(
        "ArtifactNotFound", "pvc://models/base: the folder is empty; it is tried again in 5 minutes"
    )
    assert (found.delete, found.create, found.again_after) == ((), (), 300)


def test_after_a_while_a_failed_job_makes_room_for_the_next():
    found = step(failed(ago=301), pod(REFUSAL.message(), code=65))
    assert isinstance(found.state, Problem)
    assert [(each.name, each.uid) for each in found.delete] == [(JOB["metadata"]["name"], "uid-of-job")]


def test_between_two_tries_the_last_one_is_told():
    state = step(as_made(JOB), pod(REFUSAL.message(), code=1)).state
    assert isinstance(state, Pending)
    assert state.message.endswith("the try before failed: pvc://models/base: the folder is empty")


def test_a_job_without_an_answer_says_where_to_look():
    state = step(failed()).state
    assert isinstance(state, Problem)
    assert state.reason == "JobFailed"
    assert "Job has reached the specified backoff limit; see kubectl logs -n team job/smol-inspect-" in state.message
    gone = step(as_made(JOB, conditions=[over("Complete", at=NOW)])).state
    assert isinstance(gone, Problem)
    assert "it ended and left no answer that can be read" in gone.message


def test_a_pod_that_does_not_start_is_a_problem_with_the_clusters_reason():
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, "name": "errand"}
    state = step(as_made(JOB), pod(containerStatuses=[waiting])).state
    assert isinstance(state, Problem)
    assert state.reason == "ImagePullFailed"


def test_an_eviction_is_told_where_it_left_no_answer():
    taken = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "for web"}
    state = step(failed(), pod(conditions=[taken])).state
    assert isinstance(state, Problem)
    assert "made room for one of a higher priority" in state.message


def test_a_reason_that_is_no_word_of_ours_does_not_reach_a_condition():
    odd = REFUSAL.model_copy(update={"error": WRONG.model_copy(update={"reason": "not a reason!"})})
    state = step(failed(), pod(odd.message(), code=1)).state
    assert isinstance(state, Problem)
    assert state.reason == "JobFailed"


def test_secrets_in_an_answer_do_not_reach_a_status():
    said = REFUSAL.model_copy(update={"error": WRONG.model_copy(update={"message": "token=hf_abcdefghijklmnop1234"})})
    state = step(failed(), pod(said.message(), code=1)).state
    assert isinstance(state, Problem)
    assert "hf_abc" not in state.message


def test_a_job_of_another_object_is_left_alone():
    theirs = as_made(JOB)
    theirs["metadata"]["ownerReferences"] = [{"uid": "another", "controller": True}]
    found = step(theirs, pod(ANSWER.message()))
    assert isinstance(found.state, Problem)
    assert found.state.reason == "NameTaken"
    assert (found.delete, found.create) == ((), ())


def test_a_job_that_is_being_deleted_is_waited_for():
    going = as_made(JOB)
    going["metadata"]["deletionTimestamp"] = NOW.isoformat()
    found = step(going, pod(ANSWER.message()))
    assert isinstance(found.state, Pending)
    assert found.create == ()


def test_an_answer_from_before_the_question_does_not_count():
    done = as_made(JOB, conditions=[over("Complete", at=NOW - timedelta(minutes=2))])
    assert step(done, pod(ANSWER.message())).state == ANSWER
    stale = step(done, pod(ANSWER.message()), since=NOW - timedelta(minutes=1))
    assert isinstance(stale.state, Pending)
    assert [each.uid for each in stale.delete] == ["uid-of-job"]


def test_facts_in_a_status_answer_their_own_question_alone():
    assert is_known(FACTS, CONFIG)
    assert not is_known(None, CONFIG)
    assert not is_known(FACTS, inspect_config(replace(MODEL, uri="pvc://models/other")))


async def test_the_pods_are_found_by_the_label_that_every_jobs_pods_carry():
    mine, other = pod(ANSWER.message()), pod("x", name="other")
    mine["metadata"]["labels"] = {JOB_NAME_LABEL: JOB["metadata"]["name"]}
    assert await look(FakeCluster(mine), JOB) == Seen()
    seen = await look(FakeCluster(as_made(JOB), mine, other), JOB)
    assert [each["metadata"]["name"] for each in seen.pods] == [mine["metadata"]["name"]]
    assert decide(QUESTION, seen, now=NOW).state == ANSWER


def test_the_job_wakes_the_object_that_asks_and_its_pods_wake_nobody():
    mine = (INFERENCESERVICES, Key("team", "smol"))
    assert wakes(JOBS, as_made(JOB), Links(), gone=False) == {mine}
    made = pod(ANSWER.message())
    made["metadata"]["labels"] = JOB["spec"]["template"]["metadata"]["labels"]
    assert wakes(PODS, made, Links(), gone=False) == frozenset()
