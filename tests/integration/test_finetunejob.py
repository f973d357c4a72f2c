"""Runs and attempts at a real API server, with the statuses of Jobs and pods written by the test."""

from __future__ import annotations

import asyncio

import pytest

from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, JOBS, PODS
from tests.integration.conftest import REPO
from tests.integration.played import play
from tests.unit.training import failure, result

pytestmark = pytest.mark.integration

NAMESPACE = "runs"
AT_ONCE = 8


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    assert server.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE).returncode == 0
    return server.kubeconfig


@pytest.fixture
def played(kubeconfig, monkeypatch):
    def begin(name, **spec):
        expert = {"name": name, "inferenceServiceRef": {"name": "qwen"}, "defaults": {"temperature": 0.2}}
        return play(kubeconfig, monkeypatch, NAMESPACE, name, **{"publish": {"expert": expert}} | spec)

    return begin


async def test_a_run_goes_from_preflight_to_its_expert_and_rests(server, played):
    async with played("whole") as job:
        await job.settle()
        assert await job.children() == (["whole-r1-p1"], ["whole-r1-preflight"], [])
        await job.pod()
        await job.settle()
        row = server.kubectl("get", "ftj", "whole", "-n", NAMESPACE).stdout
        assert "Preflight" in row
        await job.succeed()
        await job.settle()
        await job.pod()
        await job.settle()
        assert (await job.status()).phase == "Running"
        await job.succeed()
        await job.settle()
        jobs = ["whole-r1-a1", "whole-r1-p1"]
        assert await job.children() == (jobs, ["whole-r1-config", "whole-r1-preflight"], ["whole"])
        done = server.kubectl("wait", "--for=condition=Complete", "ftj/whole", "-n", NAMESPACE, "--timeout=5s")
        assert done.returncode == 0, done.stderr
        raw = await job.api.get(FINETUNEJOBS, NAMESPACE, "whole")
        await job.settle()
        assert await job.api.get(FINETUNEJOBS, NAMESPACE, "whole") == raw, "a second look writes nothing"
        assert "finalizers" not in raw["metadata"]
        assert await job.events() == [("Normal", "Checked"), ("Normal", "Started"), ("Normal", "Succeeded")]
        row = server.kubectl("get", "ftj", "whole", "-n", NAMESPACE, "-o", "wide").stdout
        for word in ("pvc://models/base", "Complete", "100%", "1.2", "pvc://models/out/sql-0123456789ab"):
            assert word in row


async def test_what_decides_the_result_starts_the_next_run_and_nothing_else_does(server, played):
    async with played("changes") as job:
        await job.complete()
        before = await job.children()
        done = server.kubectl("label", "ftj", "changes", "team=search", "-n", NAMESPACE)
        assert done.returncode == 0, done.stderr
        done = server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPO / "crds"))
        assert done.returncode == 0, done.stderr
        await job.settle()
        assert ((await job.status()).run.number, await job.children()) == (1, before)
        expert = {"name": "changes", "inferenceServiceRef": {"name": "qwen"}}
        await job.apply(publish={"expert": expert}, training={"maxSteps": 9})
        await job.settle()
        status = await job.status()
        assert (status.run.number, [r.number for r in status.history]) == (2, [1])
        assert (await job.children())[0] == ["changes-r2-p1"]
        await job.complete()
        assert (await job.api.get(EXPERTS, NAMESPACE, "changes"))["spec"]["defaults"] == {}, "taken back"


async def test_suspend_frees_everything_and_resume_goes_on(played):
    async with played("held") as job:
        await job.to_training()
        pod = await job.pod()
        await job.apply(suspend=True)
        await job.settle()
        assert (await job.said("Suspended"))[0] == "True"
        assert await job.names(JOBS) == ["held-r1-p1"]
        assert pod not in await job.names(PODS)
        await job.apply(suspend=False)
        await job.settle()
        assert await job.names(JOBS) == ["held-r1-a2", "held-r1-p1"]
        assert ((await job.status()).run.failures, (await job.status()).run.number) == (0, 1)


async def test_children_are_removed_after_their_time_and_the_record_stays(played):
    async with played("ttl", ttlSecondsAfterFinished=60) as job:
        await job.complete()
        assert (await job.children())[0] != []
        job.wait(120)
        await job.settle()
        assert await job.children() == ([], [], ["ttl"])
        status = await job.status()
        assert (status.phase, status.artifact.uri) == ("Complete", "pvc://models/out/sql-0123456789ab")
        job.wait(3600)
        await job.settle()
        assert await job.names(JOBS) == []


async def test_a_lost_status_and_a_namesake_are_adopted_through_preflight(server, played):
    async with played("lost") as job:
        await job.complete()
        for loss in ("status", "object"):
            if loss == "status":
                patch = '[{"op": "remove", "path": "/status"}]'
                done = server.kubectl(
                    *("patch", "ftj", "lost", "-n", NAMESPACE, "--subresource=status", "--type=json", "-p", patch)
                )
                assert done.returncode == 0, done.stderr
            else:
                await job.remove(FINETUNEJOBS, "lost")
                for name in await job.names(JOBS):
                    await job.remove(JOBS, name)
                await job.apply(publish={"expert": {"name": "lost", "inferenceServiceRef": {"name": "qwen"}}})
            await job.settle()
            run = (await job.status()).run
            assert (run.number, run.stage) == (1, "Preflight")
            await job.end(0, result(digest=run.digest, adopted=True))
            await job.settle()
            assert (await job.status()).phase == "Complete", loss
            assert await job.names(JOBS) == ["lost-r1-p1"], "nothing was trained"


def disrupted(reason):
    return [{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "the node's memory was low"}]


@pytest.mark.parametrize(
    ("name", "code", "cause", "reason"),
    [
        ("evicted", 137, "TerminationByKubelet", "Evicted"),
        ("preempted", 143, "PreemptionByScheduler", "Preempted"),
        ("node-gone", 1, "DeletionByPodGC", "NodeLost"),
        ("stopped", 75, None, "Disrupted"),
    ],
)
async def test_a_disruption_is_told_apart_and_not_counted(played, name, code, cause, reason):
    async with played(name, backoffLimit=0) as job:
        await job.to_training()
        said = "Container trainer for pod x failed with exit code 75 matching FailJob rule at index 0"
        await job.end(code, said=said if cause is None else "", conditions=disrupted(cause) if cause else ())
        await job.settle()
        assert (await job.status()).error.reason == reason
        job.wait(30)
        await job.settle()
        run = (await job.status()).run
        assert (run.attempt, run.failures) == (2, 0)
        assert ("Warning", "Retrying") in await job.events()


async def test_a_users_error_ends_the_run_even_when_the_pod_is_gone(played):
    async with played("wrong-data") as job:
        await job.settle()
        run = (await job.status()).run
        await job.end(
            65, failure("DatasetInvalid", "rows.jsonl line 17: no role", "spec.datasets[0]", digest=run.digest)
        )
        await job.settle()
        assert (await job.said("Failed"), await job.said("DatasetValid")) == (
            ("True", "DatasetInvalid"),
            ("False", "DatasetInvalid"),
        )
        await job.apply(training={"maxSteps": 3})
        await job.settle()
        said = "Container trainer for pod x failed with exit code 64 matching FailJob rule at index 0"
        await job.end(64, said=said, keep_pod=False)
        await job.settle()
        assert await job.said("Failed") == ("True", "InvalidConfig")


async def test_a_success_without_a_result_is_tried_again(played):
    async with played("silent") as job:
        await job.to_training()
        await job.end(0, keep_pod=False)
        await job.settle()
        assert (await job.status()).error.reason == "ResultMissing"
        job.wait(30)
        await job.settle()
        assert "silent-r1-a2" in await job.names(JOBS)


async def test_a_run_that_takes_too_long_is_stopped(played):
    async with played("slow", activeDeadlineSeconds=600) as job:
        await job.to_training()
        await job.pod()
        assert 0 < await job.settle() <= 600
        job.wait(700)
        await job.settle()
        assert await job.said("Failed") == ("True", "DeadlineExceeded")
        assert await job.names(JOBS) == ["slow-r1-p1"]


async def test_a_missing_claim_and_a_missing_secret_are_named(played):
    base = {"uri": "hf://org/model", "secretRef": {"name": "hub"}}
    async with played("missing", base=base, output={"uri": "pvc://absent/out"}) as job:
        assert await job.settle() == 15
        assert await job.said("StorageReachable") == ("False", "ClaimNotFound")
        await job.claim("absent")
        await job.settle()
        waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
        await job.pod(state={"waiting": waiting}, phase="Pending")
        await job.settle()
        assert await job.said("Running") == ("False", "SecretMissing")
        assert (await job.status()).message.startswith("spec.base.secretRef: no Secret 'hub'")


async def test_a_pod_that_the_api_server_refuses_is_a_condition(played):
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    async with played("refused", compute={"gpusPerNode": 0, "podTemplate": {"affinity": affinity}}) as job:
        assert [await job.look(), await job.look()] == [None, 60]
        assert await job.said("Running") == ("False", "Refused")
        assert "nodeSelectorTerms" in (await job.status()).message


async def story(job):
    """A failed attempt, a suspension and a success."""
    await job.settle()
    await job.succeed()
    await job.settle()
    await job.end(1)
    await job.apply(suspend=True)
    await job.settle()
    await job.apply()
    await job.settle()
    job.wait(60)
    await job.settle()
    await job.succeed()
    await job.settle()
    status = await job.status()
    return status.phase, status.run.attempt, status.run.failures, await job.children(), await job.events()


async def test_an_operator_that_is_killed_at_any_write_ends_the_same(kubeconfig, monkeypatch):
    # The unit tests have a longer story; here it is the server that decides what a repeated write does.
    async with play(kubeconfig, monkeypatch, NAMESPACE, "kill") as job:
        whole, writes = await story(job), job.cluster.writes
    assert whole[:3] == ("Complete", 2, 1)
    assert writes > 15

    async def killed(at):
        name = f"kill-{at}"
        async with play(kubeconfig, monkeypatch, NAMESPACE, name, kill_at=at) as job:
            phase, attempt, failures, children, events = await story(job)
        plain = tuple([child.replace(name, "kill") for child in each] for each in children)
        return phase, attempt, failures, plain, events

    for first in range(0, writes, AT_ONCE):  # each waits for the server most of its time
        moments = range(first, min(first + AT_ONCE, writes))
        for kill_at, ended in zip(moments, await asyncio.gather(*map(killed, moments)), strict=True):
            assert ended == whole, f"killed at write {kill_at}"
