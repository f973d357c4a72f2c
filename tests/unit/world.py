"""A fake cluster with one FineTuneJob, and what happens to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.meta import condition
from largeforge.controllers.finetunejob import decide, observe, reconcile
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EVENTS, JOBS, PODS
from tests.unit.fakes import FakeCluster
from tests.unit.training import NOW, PUBLISH, SETTINGS, claim, finished, manifest, passed, pod, result

KEY = Key("team", "sql")


@dataclass
class World:
    """The cluster, and the operator's clock."""

    cluster: FakeCluster
    settings = SETTINGS
    progress = None
    time = NOW

    def now(self):
        return self.time

    @property
    def raw(self):
        return self.cluster.objects["finetunejobs", "team", "sql"]

    @property
    def job(self):
        return FineTuneJob.model_validate(self.raw)

    @property
    def status(self):
        return self.job.status

    @property
    def batch(self):
        """The Job of the newest attempt."""
        return self.cluster.objects["jobs", "team", self.status.run.job_name]

    def said(self, kind):
        found = condition(self.status.conditions, kind)
        return found.status, found.reason, found.message

    async def settle(self):
        """Look until nothing is written any more; returns when to look again."""
        for _ in range(30):
            before = len(self.cluster.writes)
            again = await reconcile(KEY, self)
            if len(self.cluster.writes) == before:
                return again
        raise AssertionError(f"it never rests: {self.cluster.writes[-10:]}")

    async def plan(self):
        """What would be done now."""
        return decide(self.job, await observe(self.cluster, self.job), settings=self.settings, now=self.now())

    def edit(self, **spec):
        """The user changes fields of the spec; None takes one away."""
        generation = self.raw["metadata"]["generation"] + 1
        changed = {k: v for k, v in (self.raw["spec"] | spec).items() if v is not None}
        self.cluster.put(self.raw | {"metadata": self.raw["metadata"] | {"generation": generation}, "spec": changed})

    def start_pod(self, **fields):
        self.cluster.put(pod(self.batch, **fields))

    def end(self, code, message="", *, said="", kind=None, keep_pod=True, **fields):
        """The current attempt's pod ends with *code*, and the Job controller says so."""
        ended = kind or ("Failed" if code else "Complete")
        job = self.cluster.put(finished(self.batch, ended, message=said, time=self.time.isoformat()))
        if keep_pod:
            self.cluster.put(pod(job, code=code, message=message, **fields))
        else:
            for each in self.cluster.all(PODS):
                if each["metadata"]["name"].startswith(f"{job['metadata']['name']}-"):
                    self.cluster.drop(PODS, "team", each["metadata"]["name"])

    def succeed(self, seconds=60, **fields):
        """What is under way ends well, *seconds* after its start: a preflight, or a training."""
        made = passed if self.status.run.stage == "Preflight" else result
        self.end(0, made(digest=self.status.run.digest, **fields), seconds=seconds)

    async def to_training(self):
        """A new object whose run has passed its preflight and has its first Job of training."""
        await self.settle()
        self.succeed()
        await self.settle()
        assert self.status.run.stage == "Training"
        return self

    async def complete(self, **fields):
        """A new object whose run succeeded."""
        await self.to_training()
        self.succeed(**fields)
        await self.settle()
        return self

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)

    def events(self):
        return [(e["type"], e["reason"]) for e in self.cluster.all(EVENTS)]

    def jobs(self):
        return sorted(j["metadata"]["name"] for j in self.cluster.all(JOBS))


def world_of(*objects, claims=("models", "data"), **spec):
    """A world with a FineTuneJob of *spec*, its claims, and *objects*."""
    return World(FakeCluster(manifest(**spec), *map(claim, claims), *objects))


def publishing(**spec):
    return world_of(publish=PUBLISH, **spec)
