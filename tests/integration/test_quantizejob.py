"""QuantizeJobs at a real API server, with the statuses of Jobs and pods written by the test."""

from __future__ import annotations

import pytest

from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers.quantizejob import reconcile
from largeforge.kube.cluster import EXPERTS, JOBS, PODS, QUANTIZEJOBS
from tests.integration.played import Played, play
from tests.unit.quantizing import failure, manifest, measured, prepared, quantized

pytestmark = pytest.mark.integration

NAMESPACE = "quantize"
RESTARTED = {
    "exitCode": 1,
    "reason": "Error",
    "message": "ValueError: this scheme is not supported",
    "containerID": "x",
}


class Quantizing(Played):
    """One QuantizeJob, and all that happens to it."""

    resource, model, label, container = QUANTIZEJOBS, QuantizeJob, "largeforge.ai/quantizejob", "quantizer"
    manifest, reconcile = staticmethod(manifest), staticmethod(reconcile)

    async def succeed(self, perplexity=20.2):
        """What is under way ends well; an evaluation of a result has this *perplexity*."""
        job = await self.job()
        run = job.status.run
        if run.stage == "Preflight":
            await self.end(0, prepared(digest=run.digest))
        elif run.stage == "Quantize":
            await self.end(0, quantized(job.spec.methods[run.method], digest=run.digest))
        else:
            await self.end(0, measured(20 if run.method is None else perplexity, digest=run.digest))
        await self.settle()

    async def go_to(self, stage, method=None):
        """Let all go well until the run is at *stage* of the method at this place; results lose too much."""
        await self.settle()
        while ((run := (await self.status()).run).stage, run.method) != (stage, method):
            assert run.outcome is None
            await self.succeed(40)

    async def engine_fails(self):
        """The kubelet has started the engine of the newest attempt twice, and it has ended twice."""
        await self.pod(phase="Pending", state={"waiting": {"reason": "PodInitializing"}})
        run = (await self.status()).run
        status = {
            "name": "engine",
            "image": "x:1",
            "imageID": "",
            "ready": False,
            "started": False,
            "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": RESTARTED},
        }
        head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{run.job_name}-0-abcde"}}
        head["metadata"]["namespace"] = self.namespace
        # Its own manager, or it would take back what the other statuses say.
        await self._apply(PODS, head | {"status": {"initContainerStatuses": [status]}}, "/status", manager="engine")


@pytest.fixture(scope="module")
def kubeconfig(server):
    assert server.kubectl("create", "namespace", NAMESPACE).returncode == 0
    assert server.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE).returncode == 0
    return server.kubeconfig


@pytest.fixture
def played(kubeconfig, monkeypatch):
    def begin(name, **spec):
        expert = {"name": name, "inferenceServiceRef": {"name": "qwen"}, "defaults": {"temperature": 0.2}}
        return play(
            kubeconfig, monkeypatch, NAMESPACE, name, **{"kind": Quantizing, "publish": {"expert": expert}} | spec
        )

    return begin


async def test_a_run_goes_through_its_methods_to_its_expert_and_rests(server, played):
    async with played("whole") as job:
        await job.settle()
        assert await job.children() == (["whole-q1-p-a1"], ["whole-q1-p"], [])
        await job.go_to("Quantize", 1)
        await job.pod()
        await job.settle()
        row = server.kubectl("get", "qj", "whole", "-n", NAMESPACE).stdout
        for word in ("pvc://models/base", "GPTQ", "Quantizing", "20"):
            assert word in row
        await job.succeed()
        await job.succeed(20.2)
        steps = ["e0", "e1", "e2", "m1", "m2", "p"]
        jobs, configs, experts = await job.children()
        assert jobs == [f"whole-q1-{step}-a1" for step in steps]
        assert configs == [f"whole-q1-{step}" for step in steps]
        assert experts == ["whole"]
        done = server.kubectl("wait", "--for=condition=Complete", "qj/whole", "-n", NAMESPACE, "--timeout=5s")
        assert done.returncode == 0, done.stderr
        raw = await job.api.get(QUANTIZEJOBS, NAMESPACE, "whole")
        await job.settle()
        assert await job.api.get(QUANTIZEJOBS, NAMESPACE, "whole") == raw, "a second look writes nothing"
        assert "finalizers" not in raw["metadata"]
        events = await job.events()
        assert events == [
            ("Normal", "Checked"),
            ("Normal", "GatePassed"),
            ("Normal", "Started"),
            ("Normal", "Succeeded"),
            ("Warning", "GateFailed"),
        ]
        row = server.kubectl("get", "qj", "whole", "-n", NAMESPACE, "-o", "wide").stdout
        for word in ("GPTQ", "Complete", "20.2", "2.31", "pvc://models/small/small-gptq"):
            assert word in row
        expert = await job.api.get(EXPERTS, NAMESPACE, "whole")
        assert (expert["spec"]["type"], expert["spec"]["sourceRef"]["kind"]) == ("Model", "QuantizeJob")


async def test_the_api_server_takes_every_pod_as_restricted(server, kubeconfig, monkeypatch):
    name = "restricted"
    assert server.kubectl("create", "namespace", name).returncode == 0
    assert server.kubectl("create", "serviceaccount", "default", "-n", name).returncode == 0
    enforce = "pod-security.kubernetes.io/enforce=restricted"
    assert server.kubectl("label", "namespace", name, enforce).returncode == 0
    async with play(kubeconfig, monkeypatch, name, "secure", kind=Quantizing) as job:
        await job.settle()
        while (await job.status()).run.outcome is None:
            assert await job.pod(), "a pod that is not restricted is refused"
            await job.succeed()
        assert (await job.status()).phase == "Complete"


@pytest.mark.parametrize("kill_at", range(0, 36, 3))
async def test_an_operator_that_is_killed_before_any_write_comes_to_the_same_end(played, kill_at):
    name = f"killed-{kill_at}"
    async with played(name, kill_at=kill_at) as job:
        await job.go_to("Evaluate", 1)
        await job.succeed(20.2)
        status = await job.status()
        assert (status.phase, status.chosen_method) == ("Complete", "GPTQ")
        jobs, _, experts = await job.children()
        assert jobs == [f"{name}-q1-{step}-a1" for step in ("e0", "e1", "e2", "m1", "m2", "p")]
        assert experts == [name]


async def test_an_engine_that_does_not_load_a_result_is_told_and_the_next_method_is_tried(played):
    async with played("no-load") as job:
        await job.go_to("Evaluate", 0)
        await job.engine_fails()
        await job.settle()
        status = await job.status()
        first = status.attempts[0]
        assert (first.verdict, first.reason) == ("Error", "EngineFailed")
        assert "ValueError: this scheme is not supported" in first.message
        assert (status.run.stage, status.run.method) == ("Quantize", 1)
        assert "no-load-q1-e1-a1" not in await job.names(JOBS)


async def test_suspend_frees_everything_and_resume_goes_on_with_the_same_method(played):
    async with played("held") as job:
        await job.go_to("Quantize", 0)
        pod = await job.pod()
        await job.apply(suspend=True)
        await job.settle()
        assert (await job.said("Suspended"))[0] == "True"
        assert "held-q1-m1-a1" not in await job.names(JOBS)
        assert pod not in await job.names(PODS)
        await job.apply(suspend=False)
        await job.settle()
        assert "held-q1-m1-a2" in await job.names(JOBS)
        assert (await job.status()).run.failures == 0


async def test_refused_data_ends_the_run_and_a_changed_spec_begins_the_next(played):
    async with played("refused") as job:
        await job.settle()
        run = (await job.status()).run
        said = "spec.calibration.datasets: 12 different rows, and numSamples asks for 256"
        await job.end(65, failure("CalibrationInvalid", said, digest=run.digest, stage="Preflight"))
        await job.settle()
        assert (await job.said("Failed"), await job.said("DatasetValid")) == (
            ("True", "CalibrationInvalid"),
            ("False", "CalibrationInvalid"),
        )
        rows = {"datasets": [{"uri": "pvc://data/rows/calibration.jsonl"}], "numSamples": 12}
        await job.apply(calibration=rows)
        await job.settle()
        assert (await job.status()).run.number == 2
        assert await job.children() == (["refused-q2-p-a1"], ["refused-q2-p"], [])


async def test_children_are_removed_after_their_time_and_the_record_stays(played):
    async with played("ttl", ttlSecondsAfterFinished=60) as job:
        await job.go_to("Evaluate", 0)
        await job.succeed()
        assert (await job.children())[0] != []
        job.wait(120)
        await job.settle()
        assert await job.children() == ([], [], ["ttl"])
        assert (await job.status()).phase == "Complete"
