"""logs, progress, suspend and resume."""

import re

import pytest

from largeforge.kube.cluster import ClusterError, WatchEvent
from tests.unit.cli.stage import TellingCluster, call, job, pod, said, service
from tests.unit.training import ARTIFACT

RUN = {"number": 1, "digest": "d", "stage": "Training", "jobName": "sql-r1-a1"}
TRAINER = pod("sql-r1-a1-0-x", labels={"batch.kubernetes.io/job-name": "sql-r1-a1"})
LOG = ["loading the model", "step 1/4 loss 2.000 lr 1.0e-04 eta 9s", "step 2/4 loss 1.500 lr 1.0e-04 eta 6s"]
LOGS = {("sql-r1-a1-0-x", "trainer"): LOG}


def running(step, loss, **more):
    progress = {"percent": 25 * step, "step": step, "totalSteps": 4, "loss": loss, "summary": f"{25 * step}% {step}/4"}
    return job(status={"phase": "Running", "message": "training", "run": RUN, "progress": progress} | more)


def complete():
    metrics = [{"name": "eval_loss", "value": "1.2"}, {"name": "grad_norm", "value": "3"}]
    conditions = [said("Complete", "Succeeded")]
    status = {"phase": "Complete", "message": "trained", "run": RUN, "conditions": conditions, "metrics": metrics}
    return job(status=status | {"artifact": ARTIFACT})


def failed():
    conditions = [said("Failed", "OutOfMemory", "the pod needed more than 4Gi; raise spec.compute.resources")]
    return job(status={"phase": "Failed", "run": RUN, "conditions": conditions})


def modified(found):
    return WatchEvent("MODIFIED", found)


def test_the_log_is_that_of_the_newest_attempt():
    old = pod("sql-r1-a0-0-x", labels={"batch.kubernetes.io/job-name": "sql-r1-a0"})
    cluster = TellingCluster(running(2, "1.5"), TRAINER, old, logs=LOGS)
    assert call("logs", "ftj/sql", cluster=cluster).stdout.splitlines() == LOG
    assert call("logs", "sql", "--tail", "1", cluster=cluster).stdout.splitlines() == LOG[-1:]


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_lines_of_several_engines_stand_behind_their_pods_names(follow):
    labels = {"largeforge.ai/inferenceservice": "qwen"}
    errand = pod("qwen-inspect", labels=labels | {"batch.kubernetes.io/job-name": "qwen-inspect"})
    engines = [pod(f"qwen-engine-{n}", container="engine", labels=labels) for n in "ab"]
    logs = {(p["metadata"]["name"], "engine"): ["started"] for p in engines}
    done = call("logs", "infsvc/qwen", *follow, cluster=TellingCluster(service(), errand, *engines, logs=logs))
    assert sorted(done.stdout.splitlines()) == ["[qwen-engine-a] started", "[qwen-engine-b] started"]


def test_an_object_without_pods_says_what_it_waits_for():
    done = call("logs", "sql", cluster=TellingCluster(job(status={"phase": "Pending", "message": "waits for claim a"})))
    assert done.exit_code == 1
    assert done.stderr == "error: ftj/sql has no pod: Pending, waits for claim a\n"


def test_a_container_that_is_not_there_is_said_with_those_that_are():
    done = call("logs", "sql", "-c", "engine", cluster=TellingCluster(running(2, "1.5"), TRAINER))
    assert done.stderr == "error: pod sql-r1-a1-0-x has no container 'engine'; it has trainer\n"


@pytest.mark.parametrize("command", ["logs", "progress", "suspend", "resume"])
def test_an_object_that_is_not_there_is_named_with_the_way_to_the_others(command):
    done = call(command, "ftj/none", cluster=TellingCluster())
    assert done.exit_code == 1
    assert done.stderr == (
        "error: no FineTuneJob 'none' in namespace 'team'; kubectl largeforge status -n team lists what is there\n"
    )


def test_a_kind_that_the_command_is_not_for_is_refused():
    done = call("logs", "xp/sql", cluster=TellingCluster())
    assert "name a FineTuneJob, QuantizeJob or InferenceService, for example ftj/NAME" in done.stderr


def test_a_name_of_two_objects_must_say_its_kind():
    done = call("suspend", "sql", cluster=TellingCluster(job(), job(kind="QuantizeJob")))
    assert done.stderr == "error: 'sql' is several objects; write one of: ftj/sql, qj/sql\n"


def test_progress_ends_with_the_job_and_tells_each_change_once():
    scenes = [modified(running(3, "1.4")), modified(running(3, "1.4")), modified(complete())]
    done = call("progress", "sql", cluster=TellingCluster(running(2, "1.5"), TRAINER, logs=LOGS, scenes=scenes))
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "Running: training; 50% 2/4, loss 1.5",
        "Running: training; 75% 3/4, loss 1.4",
        "Complete: trained",
        "eval_loss 1.2",
        "pvc://models/out/sql-0123456789ab",
    ]


def test_progress_of_a_job_that_fails_ends_with_its_own_words_and_1():
    done = call("progress", "sql", cluster=TellingCluster(running(2, "1.5"), scenes=[modified(failed())]))
    assert done.exit_code == 1
    assert done.stderr == (
        "error: ftj/sql failed, OutOfMemory: the pod needed more than 4Gi; raise spec.compute.resources\n"
    )


def test_progress_of_a_job_that_is_deleted_ends():
    gone = WatchEvent("DELETED", running(2, "1.5"))
    done = call("progress", "sql", cluster=TellingCluster(running(2, "1.5"), scenes=[gone]))
    assert (done.exit_code, done.stderr) == (1, "error: ftj/sql was deleted\n")


def test_once_does_not_wait():
    done = call("progress", "sql", "--once", cluster=TellingCluster(running(2, "1.5")))
    assert (done.exit_code, done.stdout) == (0, "Running: training; 50% 2/4, loss 1.5\n")


def test_a_log_that_may_not_be_read_is_said_and_status_goes_on():
    logs = {("sql-r1-a1-0-x", "trainer"): ClusterError("403: pods/log is forbidden")}
    done = call("progress", "sql", "--once", cluster=TellingCluster(running(2, "1.5"), TRAINER, logs=logs))
    assert (done.exit_code, done.stdout) == (0, "Running: training; 50% 2/4, loss 1.5\n")
    assert "the log cannot be read: 403" in done.stderr


def test_progress_of_a_quantize_job_tells_each_methods_figures():
    attempts = [{"method": "AWQ", "perplexityBefore": "10", "perplexityAfter": "10.1", "verdict": "Passed"}]
    status = {"phase": "Complete", "conditions": [said("Complete", "Succeeded")], "attempts": attempts}
    done = call("progress", "qj/small", cluster=TellingCluster(job("small", kind="QuantizeJob", status=status)))
    assert done.stdout.splitlines() == ["Complete", "AWQ: perplexity 10 -> 10.1, passed"]


@pytest.mark.parametrize(
    ("found", "name", "field"),
    [
        (job(), "ftj/sql", "suspend"),
        (job("small", kind="QuantizeJob"), "qj/small", "suspend"),
        (service(), "infsvc/qwen", "stopped"),
    ],
)
def test_suspend_and_resume_write_one_field_and_a_second_call_writes_nothing(found, name, field):
    cluster = TellingCluster(found)
    for command, value in (("suspend", True), ("suspend", True), ("resume", False), ("resume", False)):
        done = call(command, name, cluster=cluster)
        assert done.exit_code == 0, done.output
        assert re.match(rf"{name}: spec.{field} is {str(value).lower()} (now|already)\n", done.stdout)
        (kept,) = cluster.objects.values()
        assert kept["spec"] == found["spec"] | {field: value}
    assert len(cluster.writes) == 2
