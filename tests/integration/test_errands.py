"""The Jobs that look at, copy and remove artifacts, at a real API server that takes restricted pods alone."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from largeforge.api.inspect import InspectResult, ModelFacts
from largeforge.api.meta import ObjectMeta
from largeforge.controllers.inspection import JOB_NAME_LABEL, Pending, Question, decide, look
from largeforge.controllers.plan import Plan, execute
from largeforge.kube.client import ApiCluster
from largeforge.kube.cluster import EXPERTS, JOBS, PODS
from largeforge.kube.transport import APPLY, Request, open_transport, path
from largeforge.resources.deliver import deliver_job, remove_job
from largeforge.resources.inspect import inspect_config, inspect_job
from largeforge.resources.owner import owner_reference
from tests.unit.errands import (
    ADAPTER,
    DELIVERY,
    EXPERT,
    HERE,
    HUB_MODEL,
    MODEL,
    QUANTIZEJOB,
    REJECTED,
    REMOVAL,
    SERVICE,
)
from tests.unit.serving import expert_manifest

pytestmark = pytest.mark.integration

NAMESPACE = "errands"
JOBS_OF_ALL_KINDS = {
    "adapter": inspect_job(ADAPTER, EXPERT, installation=HERE),
    "model": inspect_job(MODEL, SERVICE, installation=HERE, placement={"nodeSelector": {"disk": "fast"}}),
    "hub": inspect_job(HUB_MODEL, SERVICE, installation=HERE),
    "deliver": deliver_job(DELIVERY, EXPERT, installation=HERE),
    "remove": remove_job(REMOVAL, EXPERT, installation=HERE),
    "rejected": remove_job(REJECTED, QUANTIZEJOB, installation=HERE),
}


@pytest.fixture(scope="module")
def kubeconfig(server):
    enforced = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}
    done = server.kubectl("create", "-f", "-", stdin=json.dumps(namespace))
    assert done.returncode == 0, done.stderr
    assert server.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE).returncode == 0
    return server.kubeconfig


def here(job):
    return job | {"metadata": job["metadata"] | {"namespace": NAMESPACE}}


@pytest.mark.usefixtures("kubeconfig")
@pytest.mark.parametrize("kind", JOBS_OF_ALL_KINDS)
def test_each_job_is_accepted_as_it_is_and_its_pods_are_restricted(server, kind):
    job = here(JOBS_OF_ALL_KINDS[kind])
    done = server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", stdin=json.dumps(job)
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    kept = json.loads(done.stdout)
    assert kept["spec"]["podReplacementPolicy"] == "Failed"
    assert kept["spec"]["ttlSecondsAfterFinished"] == 3600
    template = kept["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": NAMESPACE},
        "spec": template["spec"],
    }
    done = server.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    assert (done.returncode, done.stderr) == (0, "")


class Asked:
    """An Expert that asks, the test playing the Job's controller and its pod."""

    def __init__(self, transport, expert):
        self.transport, self.api, self.expert = transport, ApiCluster(transport), expert
        parent = replace(EXPERT, metadata=ObjectMeta.model_validate(expert["metadata"]))
        job = inspect_job(MODEL, parent, installation=HERE)
        self.question = Question(job, inspect_config(MODEL), InspectResult)
        self.name = job["metadata"]["name"]

    async def step(self, *, after=timedelta()):
        """One pass: look, decide, carry out."""
        now = datetime.now(UTC) + after
        found = decide(self.question, await look(self.api, self.question.job), now=now)
        await execute(Plan(create=found.create, delete=found.delete), self.api, self.expert, now=now)
        return found

    async def ended(self, message, *, code):
        """The pod leaves *message*, and the Job's controller says that it is over."""
        job = await self.api.get(JOBS, NAMESPACE, self.name)
        template = job["spec"]["template"]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{self.name}-abcde",
                "namespace": NAMESPACE,
                "labels": template["metadata"]["labels"] | {JOB_NAME_LABEL: self.name},
                "ownerReferences": [owner_reference("batch/v1", "Job", ObjectMeta.model_validate(job["metadata"]))],
            },
            "spec": template["spec"],
        }
        await self.transport.call(Request("POST", path(PODS, NAMESPACE), body=body))
        container = {"name": "errand", "image": "trainer:1", "imageID": "", "ready": False, "restartCount": 0}
        state = {"terminated": {"exitCode": code, "message": message}}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container | {"state": state}]}
        await self._status(PODS, body | {"metadata": {"name": f"{self.name}-abcde", "namespace": NAMESPACE}}, status)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        time = {"lastTransitionTime": now, "lastProbeTime": now, "status": "True", "reason": "x", "message": "it ended"}
        kinds = ("FailureTarget", "Failed") if code else ("SuccessCriteriaMet", "Complete")
        status = {
            "startTime": now,
            "conditions": [time | {"type": kind} for kind in kinds],
            "uncountedTerminatedPods": {},
            **({"failed": 1} if code else {"succeeded": 1, "completionTime": now}),
        }
        await self._status(JOBS, job, status)

    async def _status(self, resource, body, status):
        head = {key: body[key] for key in ("apiVersion", "kind")}
        head["metadata"] = {key: body["metadata"][key] for key in ("name", "namespace")}
        where = path(resource, NAMESPACE, head["metadata"]["name"]) + "/status"
        query = {"fieldManager": "played", "force": "true"}
        await self.transport.call(Request("PATCH", where, query, head | {"status": status}, APPLY))


@asynccontextmanager
async def asked(kubeconfig, monkeypatch, name):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with open_transport(user_agent="largeforge-test") as transport:
        wanted = expert_manifest(name)
        api = ApiCluster(transport)
        await api.apply(wanted | {"metadata": {"name": name, "namespace": NAMESPACE}}, manager="user")
        yield Asked(transport, await api.get(EXPERTS, NAMESPACE, name))


async def test_a_question_is_asked_once_and_answered(kubeconfig, monkeypatch):
    async with asked(kubeconfig, monkeypatch, "answered") as expert:
        first = await expert.step()
        assert isinstance(first.state, Pending)
        uid = (await expert.api.get(JOBS, NAMESPACE, expert.name))["metadata"]["uid"]
        assert (await expert.step()).create == ()
        request = expert.question.config.request
        answer = InspectResult(outcome="Succeeded", request=request, model=ModelFacts(request=request, layers=30))
        await expert.ended(answer.message(), code=0)
        for _ in range(2):
            assert (await expert.step()).state == answer
        assert (await expert.api.get(JOBS, NAMESPACE, expert.name))["metadata"]["uid"] == uid


async def test_a_failed_one_is_asked_again_after_a_while_by_another_job(kubeconfig, monkeypatch):
    async with asked(kubeconfig, monkeypatch, "failed") as expert:
        await expert.step()
        await expert.ended("nothing that can be read", code=1)
        failed = await expert.step()
        assert failed.state.reason == "JobFailed"
        assert failed.delete == ()
        uid = (await expert.api.get(JOBS, NAMESPACE, expert.name))["metadata"]["uid"]
        later = await expert.step(after=timedelta(minutes=6))
        assert [each.uid for each in later.delete] == [uid]
        again = await expert.step(after=timedelta(minutes=6))
        assert isinstance(again.state, Pending)
        assert (await expert.api.get(JOBS, NAMESPACE, expert.name))["metadata"]["uid"] != uid
