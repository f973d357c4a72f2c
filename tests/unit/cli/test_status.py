import json
from datetime import UTC, datetime

import pytest

from largeforge.cli.state import age, row
from largeforge.kube.cluster import ClusterError
from largeforge.kube.transport import Missing
from tests.unit.cli.stage import TellingCluster, call, expert, job, said, service

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
RUNNING = {
    "phase": "Running",
    "message": "training",
    "conditions": [said("Complete", "Running", status="False")],
    "progress": {"summary": "30% 120/400", "loss": "1.83", "eta": "12m"},
}
NOT_READY = {"conditions": [said("Ready", "SourceNotComplete", "FineTuneJob sql is not complete", status="False")]}
READY = {"summary": "2/2", "conditions": [said("Ready", "Ready")]}


def everything():
    return TellingCluster(
        expert(status=NOT_READY), service(status=READY), job(status=RUNNING), job("small", kind="QuantizeJob")
    )


def test_all_four_kinds_are_listed_with_what_each_waits_for():
    done = call("status", cluster=everything())
    assert done.exit_code == 0
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines()] == [
        ["OBJECT", "STATE", "AGE   WAITS FOR, OR ENDED WITH"],
        ["ftj/sql", "Running", "training; 30% 120/400, loss 1.83, ETA 12m"],
        ["qj/small", "New", "waits for the operator, which has not seen it"],
        ["infsvc/qwen", "Ready", "2/2 pods"],
        ["xp/sql", "NotReady", "FineTuneJob sql is not complete"],
    ]


def test_json_has_the_same_for_programs():
    (item,) = json.loads(call("status", "-o", "json", cluster=TellingCluster(expert(status=NOT_READY))).stdout)["items"]
    assert item == {
        "kind": "Expert",
        "namespace": "team",
        "name": "sql",
        "state": "NotReady",
        "reason": "SourceNotComplete",
        "message": "FineTuneJob sql is not complete",
        "ageSeconds": None,
    }


def test_only_the_namespace_that_is_asked_for_is_shown_and_all_of_them_with_their_names():
    cluster = TellingCluster(service(), service("other") | {"metadata": {"name": "other", "namespace": "else"}})
    assert "other" not in call("status", cluster=cluster).stdout
    assert "other" in call("status", "-n", "else", cluster=cluster).stdout
    lines = call("status", "-A", cluster=cluster).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["NAMESPACE", "OBJECT"],
        ["team", "infsvc/qwen"],
        ["else", "infsvc/other"],
    ]


def test_a_namespace_without_objects_is_said_and_is_no_error():
    done = call("status", cluster=TellingCluster())
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "no objects of LargeForge in namespace 'team'\n"


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (ClusterError("no credentials for a cluster: no file; set KUBECONFIG"), "set KUBECONFIG"),
        (ClusterError("GET /apis/x: Cannot connect to host"), "the API server was not reached"),
        (ClusterError('403: experts is forbidden: User "a" cannot list'), "<release>-view"),
        (ClusterError("401: Unauthorized"), "log in again"),
        (Missing("the server could not find the requested resource"), "is LargeForge installed here?"),
    ],
)
def test_a_cluster_that_does_not_answer_is_one_line_and_exit_code_1(trouble, words):
    for cluster in (trouble, TellingCluster(refused=trouble)):
        done = call("status", cluster=cluster)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_how_a_job_ended_is_told_with_its_reason():
    status = {"phase": "Failed", "message": "row 17: no answer", "conditions": [said("Failed", "DatasetInvalid")]}
    told = row(job(status=status), now=NOW)
    assert (told.state, told.reason, told.message) == ("Failed", "DatasetInvalid", "row 17: no answer")


def test_a_service_that_cannot_come_up_is_stalled_and_one_that_was_stopped_is_stopped():
    conditions = [said("Ready", "DoesNotFit", "too large", status="False"), said("Stalled", "DoesNotFit")]
    assert row(service(status={"conditions": conditions}), now=NOW).state == "Stalled"
    stopped = [said("Ready", "Stopped", "spec.stopped", status="False")]
    assert row(service(status={"conditions": stopped}), now=NOW).state == "Stopped"


def test_an_object_of_a_newer_release_does_not_hide_the_others():
    newer = job(status={"run": {"number": "many", "digest": "d"}})
    told = row(newer, now=NOW)
    assert told.state == "Unreadable"
    assert told.message.startswith("status.run.number: ")


def test_a_message_of_several_lines_is_one_line():
    status = {"phase": "Pending", "message": "waits\nfor a claim"}
    assert row(job(status=status), now=NOW).message == "waits for a claim"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (-3, "0s"), (59, "59s"), (60, "1m"), (7300, "2h"), (200_000, "2d")]
)
def test_ages_are_short(seconds, text):
    assert age(seconds) == text


def test_the_age_is_since_the_creation():
    made = service()
    made["metadata"]["creationTimestamp"] = "2026-11-25T11:58:00Z"
    assert row(made, now=NOW).ageSeconds == 120
