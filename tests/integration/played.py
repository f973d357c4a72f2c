"""A FineTuneJob at a real API server: the test plays its user, the Job's controller, the kubelet and the collector."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.meta import condition
from largeforge.controllers.context import utc_now
from largeforge.controllers.finetunejob import reconcile
from largeforge.controllers.workqueue import Key
from largeforge.kube.client import ApiCluster
from largeforge.kube.cluster import CONFIGMAPS, EVENTS, EXPERTS, FINETUNEJOBS, JOBS, PERSISTENTVOLUMECLAIMS, PODS
from largeforge.kube.transport import APPLY, Request, open_transport, path
from largeforge.resources.owner import controller_uid
from tests.unit.fakes import Killed
from tests.unit.training import SETTINGS, manifest, passed, result

WRITES = ("apply", "create_once", "delete", "patch_status")


class Dying:
    """A cluster whose user is killed before its write number *kill_at*."""

    def __init__(self, cluster, kill_at):
        self._cluster, self.kill_at, self.writes = cluster, kill_at, 0

    def __getattr__(self, name):
        verb = getattr(self._cluster, name)
        if name not in WRITES:
            return verb

        async def write(*arguments, **named):
            if self.writes == self.kill_at:
                self.kill_at = None
                raise Killed
            self.writes += 1
            return await verb(*arguments, **named)

        return write


class Played:
    """One FineTuneJob, and all that happens to it. The operator's clock can be put forward.

    The operator asks through a transport of its own where one is given, with rights of its own.
    """

    resource, model, label, container = FINETUNEJOBS, FineTuneJob, "largeforge.ai/finetunejob", "trainer"
    manifest, reconcile = staticmethod(manifest), staticmethod(reconcile)

    def __init__(self, transport, namespace, name, *, kill_at=None, operator=None):
        self.transport, self.namespace, self.name = transport, namespace, name
        self.api = ApiCluster(transport)
        self.cluster = Dying(ApiCluster(operator or transport), kill_at)
        self.settings = SETTINGS
        self.offset = timedelta()

    def now(self):
        return utc_now() + self.offset

    def wait(self, seconds):
        self.offset += timedelta(seconds=seconds)

    async def look(self):
        context = SimpleNamespace(cluster=self.cluster, settings=self.settings, progress=None, now=self.now)
        return await self.reconcile(Key(self.namespace, self.name), context)

    async def settle(self):
        """Let the operator look, killed and started again where that is the plan, until it writes nothing."""
        for _ in range(40):
            before = self.cluster.writes
            try:
                again = await self.look()
            except Killed:
                continue
            await self.collect()
            if self.cluster.writes == before:
                return again
        raise AssertionError("it never rests")

    async def collect(self):
        """What the garbage collector does: pods whose Job is gone."""
        label = {self.label: self.name}
        uids = {job["metadata"]["uid"] for job in await self.api.list(JOBS, self.namespace, labels=label)}
        for pod in await self.api.list(PODS, self.namespace, labels=label):
            if controller_uid(pod) not in uids:
                await self.remove(PODS, pod["metadata"]["name"])

    async def job(self):
        return self.model.model_validate(await self.api.get(self.resource, self.namespace, self.name))

    async def status(self):
        return (await self.job()).status

    async def said(self, kind):
        found = condition((await self.status()).conditions, kind)
        return found.status, found.reason

    async def apply(self, **spec):
        """What the user applies; the spec is laid over a small one."""
        raw = self.manifest(name=self.name, **spec)
        metadata = {"name": self.name, "namespace": self.namespace, "labels": raw["metadata"].get("labels", {})}
        return await self.api.apply(raw | {"metadata": metadata}, manager="user")

    async def claim(self, name, mode="ReadWriteMany"):
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}},
        }
        await self._apply(PERSISTENTVOLUMECLAIMS, body)

    async def remove(self, resource, name):
        # No kubelet is there to end a pod: without a grace period the server forgets it at once.
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "propagationPolicy": "Background",
        }
        await self.transport.call(Request("DELETE", path(resource, self.namespace, name), body=options))

    async def names(self, resource):
        """The names of this object's children of one kind."""
        label = {self.label: self.name}
        return sorted(m["metadata"]["name"] for m in await self.api.list(resource, self.namespace, labels=label))

    async def children(self):
        return await self.names(JOBS), await self.names(CONFIGMAPS), await self.names(EXPERTS)

    async def events(self):
        found = await self.api.list(EVENTS, self.namespace)
        return sorted((e["type"], e["reason"]) for e in found if e["regarding"]["name"] == self.name)

    async def pod(self, *, state=None, conditions=(), phase="Running"):
        """The pod of the newest attempt's Job, as its controller makes it and the kubelet reports it."""
        name = (await self.status()).run.job_name
        batch = await self.api.get(JOBS, self.namespace, name)
        template = batch["spec"]["template"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": batch["metadata"]["uid"]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-0-abcde",
                "namespace": self.namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
            },
            "spec": template["spec"] | {"nodeName": "node-1"},
        }
        if await self.api.get(PODS, self.namespace, body["metadata"]["name"]) is None:
            await self.transport.call(Request("POST", path(PODS, self.namespace), body=body))
        container = {"name": self.container, "image": "x:1", "imageID": "", "ready": False, "restartCount": 0}
        status = {
            "phase": phase,
            "conditions": [{"lastTransitionTime": None, **c} for c in conditions],
            "containerStatuses": [container | {"state": state or {"running": {"startedAt": self._time()}}}],
        }
        head = {k: body[k] for k in ("apiVersion", "kind")} | {
            "metadata": {"name": body["metadata"]["name"], "namespace": self.namespace}
        }
        await self._apply(PODS, head | {"status": status}, part="/status")
        return body["metadata"]["name"]

    async def end(self, code, message="", *, said="it ended", conditions=(), keep_pod=True):
        """The attempt's pod ends, and the Job's controller says so."""
        state = {
            "terminated": {"exitCode": code, "message": message, "startedAt": self._time(), "finishedAt": self._time()}
        }
        pod = await self.pod(state=state, conditions=conditions, phase="Failed" if code else "Succeeded")
        if not keep_pod:
            await self.remove(PODS, pod)
        time = {"lastTransitionTime": self._time(), "lastProbeTime": self._time(), "status": "True"}
        kinds = ("FailureTarget", "Failed") if code else ("SuccessCriteriaMet", "Complete")
        status = {
            "startTime": self._time(),
            "conditions": [time | {"type": kind, "reason": "PodFailurePolicy", "message": said} for kind in kinds],
            "uncountedTerminatedPods": {},
            **({"failed": 1} if code else {"succeeded": 1, "completedIndexes": "0", "completionTime": self._time()}),
        }
        name = (await self.status()).run.job_name
        head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": self.namespace}}
        await self.api.patch_status(head | {"status": status}, manager="job-controller")

    async def succeed(self, **fields):
        run = (await self.status()).run
        made = passed if run.stage == "Preflight" else result
        await self.end(0, made(digest=run.digest, **fields))

    async def to_training(self):
        await self.settle()
        await self.succeed()
        await self.settle()

    async def complete(self):
        await self.to_training()
        await self.succeed()
        await self.settle()

    def _time(self):
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    async def _apply(self, resource, body, part="", manager="played"):
        url = path(resource, self.namespace, body["metadata"]["name"]) + part
        query = {"fieldManager": manager, "force": "true"}
        return await self.transport.call(Request("PATCH", url, query, body, APPLY))


@asynccontextmanager
async def play(kubeconfig, monkeypatch, namespace, name, *, kill_at=None, operator=None, kind=Played, **spec):
    """A FineTuneJob (or another *kind*) of *spec* with its claims, at the API server of *kubeconfig*."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with open_transport(user_agent="largeforge-test") as transport:
        played = kind(transport, namespace, name, kill_at=kill_at, operator=operator)
        for claim in ("models", "data"):
            await played.claim(claim)
        await played.apply(**spec)
        yield played
