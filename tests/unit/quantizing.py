"""QuantizeJobs, their Jobs and pods, as tests need them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

from largeforge.api.deliver import DeliverConfig
from largeforge.api.meta import condition
from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers.quantizejob import decide, observe, reconcile
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import CONFIGMAPS, EVENTS, EXPERTS, JOBS, PODS
from tests.unit.fakes import FakeCluster
from tests.unit.training import NOW, SETTINGS, checkpoint, claim, finished, pod

KEY = Key("team", "small")
PUBLISH = {"expert": {"name": "small", "inferenceServiceRef": {"name": "qwen"}, "version": "1.0.0"}}
SOURCE = {"uri": "pvc://models/base", "digest": "b" * 64, "sizeBytes": 273_000_000, "dtype": "bfloat16"}
BEFORE = {"perplexity": "20", "tokens": 32_704, "windows": 64}


def trained():
    """A FineTuneJob whose adapter is a source."""
    adapter = {"kind": "Adapter", "uri": "pvc://models/out/sql-1", "digest": "a", "sizeBytes": 1, "rank": 8}
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "sql", "namespace": "team"},
        "spec": {
            "method": "SFT",
            "base": {"uri": "pvc://models/base"},
            "datasets": [{"uri": "pvc://data/x.jsonl"}],
            "output": {"uri": "pvc://models/out"},
        },
        "status": {
            "run": {"number": 1, "digest": "d", "outcome": "Succeeded", "base": {"uri": "pvc://models/base"}},
            "artifact": adapter | {"base": "pvc://models/base"},
            "artifactRun": 1,
            "checkpoint": checkpoint(1),
        },
    }


def manifest(*, name="small", generation=1, **spec):
    """A QuantizeJob as the API server hands it out; *spec* is laid over a small one."""
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "QuantizeJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": "uid-of-small",
            "generation": generation,
            "resourceVersion": "1",
        },
        "spec": {
            "source": {"uri": "pvc://models/base"},
            "methods": ["AWQ", "GPTQ"],
            "calibration": {"datasets": [{"uri": "pvc://data/rows/calibration.jsonl"}]},
            "compute": {"gpusPerNode": 0},
            "output": {"uri": "pvc://models/small"},
        }
        | spec,
    }


def quantizejob(*, status=None, **spec):
    return QuantizeJob.model_validate(manifest(**spec) | ({"status": status} if status else {}))


def prepared(*, digest, **fields):
    """What a preflight that found nothing wrong leaves as its termination message."""
    made = {
        "source": SOURCE,
        "calibration": {"digest": "c" * 64, "samples": 256, "tokens": 100_000},
        "windows": 64,
        "windowTokens": 32_768,
        "windowsDigest": "e" * 64,
        "uri": "pvc://models/small/small-0123456789ab-tokens",
    }
    return json.dumps({"outcome": "Succeeded", "stage": "Preflight", "runDigest": digest, "prepared": made | fields})


def artifact(method, *, size=118_000_000):
    """The model that *method* wrote."""
    return {
        "kind": "Model",
        "uri": f"pvc://models/small/small-{method.lower()}",
        "digest": "a" * 64,
        "sizeBytes": size,
        "base": "pvc://models/base",
    }


def quantized(method, *, digest, **fields):
    """What the quantizer leaves."""
    made = {"artifact": artifact(method), "seconds": 64, "peakMemoryBytes": 10**9}
    return json.dumps({"outcome": "Succeeded", "stage": "Quantize", "runDigest": digest} | made | fields)


def measured(perplexity, *, digest):
    """What an evaluation leaves."""
    record = BEFORE | {"perplexity": str(perplexity)}
    return json.dumps({"outcome": "Succeeded", "stage": "Evaluate", "runDigest": digest, "evaluation": record})


def failure(reason, message, *, digest, stage="Quantize"):
    error = {"reason": reason, "message": message}
    return json.dumps({"outcome": "Failed", "stage": stage, "runDigest": digest, "error": error})


def quantizer_pod(job, **fields):
    """The pod of *job*, whose own container is `quantizer`."""
    made = pod(job, **fields)
    for status in made["status"]["containerStatuses"]:
        status["name"] = "quantizer"
    return made


def engine_pod(job, *, state=None, restarts=0, last=None, started=False):
    """The pod of an evaluation whose engine is at its start, or has ended there."""
    made = pod(job)
    made["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": "quantizer", "state": {"waiting": {"reason": "PodInitializing"}}}],
        "initContainerStatuses": [
            {
                "name": "engine",
                "restartCount": restarts,
                "started": started,
                "state": state or {"running": {"startedAt": "2026-11-25T12:00:00Z"}},
                **({"lastState": {"terminated": last}} if last else {}),
            }
        ],
    }
    return made


@dataclass
class World:
    """A fake cluster with one QuantizeJob, the operator's clock, and what happens to it."""

    cluster: FakeCluster
    settings = SETTINGS
    progress = None
    time = NOW

    def now(self):
        return self.time

    @property
    def raw(self):
        return self.cluster.objects["quantizejobs", "team", "small"]

    @property
    def job(self):
        return QuantizeJob.model_validate(self.raw)

    @property
    def status(self):
        return self.job.status

    @property
    def batch(self):
        """The Job of the newest attempt."""
        return self.cluster.objects["jobs", "team", self.status.run.job_name]

    @property
    def method(self):
        """The method that is at work."""
        place = self.status.run.method
        return None if place is None else self.job.spec.methods[place]

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
        self.cluster.put(quantizer_pod(self.batch, **fields))

    def end(self, code, message="", *, said="", **fields):
        """The current attempt's pod ends with *code*, and the Job controller says so."""
        ended = "Failed" if code else "Complete"
        job = self.cluster.put(finished(self.batch, ended, message=said, time=self.time.isoformat()))
        self.cluster.put(quantizer_pod(job, code=code, message=message, **fields))

    def fail(self, code, reason, message):
        """The current attempt ends with *code* and says why."""
        run = self.status.run
        self.end(code, failure(reason, message, digest=run.digest, stage=run.stage))

    def succeed(self, perplexity=20.2, **fields):
        """What is under way ends well: a preflight, a method, or an evaluation with this *perplexity*."""
        run = self.status.run
        if run.stage == "Preflight":
            self.end(0, prepared(digest=run.digest, **fields))
        elif run.stage == "Quantize":
            self.end(0, quantized(self.method, digest=run.digest, **fields))
        else:
            self.end(0, measured(20 if run.method is None else perplexity, digest=run.digest))

    async def go_to(self, stage, method=None):
        """Let all go well, results lose too much, until the run is at *stage* of *method*."""
        await self.settle()
        while (self.status.run.stage, self.method) != (stage, method):
            assert self.status.run.outcome is None, self.status
            self.succeed(perplexity=40)
            await self.settle()
        return self

    async def complete(self, *perplexities):
        """Let all go well; the methods' results have these *perplexities*, in order."""
        left = list(perplexities or (20.2,))
        await self.settle()
        while self.status.run.outcome is None:
            at_result = self.status.run.stage == "Evaluate" and self.method is not None
            self.succeed(perplexity=left.pop(0)) if at_result else self.succeed()
            await self.settle()
        assert not left
        return self

    def removals(self):
        """The Jobs that remove files, and have not ended."""
        return [j for j in self.cluster.all(JOBS) if "-remove-" in j["metadata"]["name"] and "status" not in j]

    def removed(self, *, error=None):
        """They end well, or with *error*; returns the folders that they were asked to remove."""
        folders = []
        for batch in self.removals():
            (container,) = batch["spec"]["template"]["spec"]["containers"]
            question = DeliverConfig.model_validate_json(container["env"][0]["value"])
            folders.append(question.target_uri)
            outcome = {"outcome": "Failed", "error": error} if error else {"outcome": "Succeeded"}
            answer = json.dumps(outcome | {"request": question.request, "uri": question.target_uri})
            job = finished(batch, "Failed" if error else "Complete", time=self.time.isoformat())
            made = pod(self.cluster.put(job), code=65 if error else 0, message=answer)
            for status in made["status"]["containerStatuses"]:
                status["name"] = container["name"]
            self.cluster.put(made)
        return folders

    async def tidy(self):
        """Let all that is asked for be removed; the folders, in order."""
        folders = []
        while self.removals():
            folders += self.removed()
            await self.settle()
        return folders

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)

    def events(self):
        return [(e["type"], e["reason"]) for e in self.cluster.all(EVENTS)]

    def jobs(self):
        return sorted(j["metadata"]["name"] for j in self.cluster.all(JOBS))

    def configs(self):
        return sorted(c["metadata"]["name"] for c in self.cluster.all(CONFIGMAPS))

    def pods(self):
        return self.cluster.all(PODS)

    def experts(self):
        return self.cluster.all(EXPERTS)


def world_of(*objects, claims=("models", "data"), **spec):
    """A world with a QuantizeJob of *spec*, its claims, and *objects*."""
    return World(FakeCluster(manifest(**spec), *map(claim, claims), *objects))
