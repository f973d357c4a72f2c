"""InferenceServices, Experts, their pods and engines, as tests need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from largeforge.api.common import ErrorDetail
from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.inspect import InspectConfig, InspectResult, ModelFacts
from largeforge.api.messages import QUESTION
from largeforge.api.meta import condition
from largeforge.api.names import Reason
from largeforge.api.probes import PROBES
from largeforge.controllers import expert, inferenceservice
from largeforge.controllers.engine import Answers, Measured, Said, Tokens, Trouble
from largeforge.controllers.inspection import JOB_NAME_LABEL
from largeforge.controllers.routerreports import RouterReports
from largeforge.controllers.servicesource import source_of, subject_of
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EVENTS, JOBS, PODS
from largeforge.resources.inspect import inspect_config
from largeforge.resources.names import adapter_owner
from tests.unit.errands import over
from tests.unit.errands import pod as errand_pod
from tests.unit.fakes import FakeCluster
from tests.unit.training import NOW, SETTINGS, claim
from tests.unit.training import manifest as job_manifest

SMALL = {
    "digest": "f" * 64,
    "architecture": "LlamaForCausalLM",
    "parameters": 134_515_008,
    "weightBytes": 269_030_016,
    "layers": 30,
    "attentionHeads": 9,
    "kvHeads": 3,
    "headSize": 64,
    "hiddenSize": 576,
    "vocabulary": 49_152,
    "maxPositions": 8192,
    "cache": {"valuesPerToken": 11_520},
}
NAMESPACE = "team"
BASE = "pvc://models/base"
STORE = "pvc://models/out"
MASTER_KEY = b"m" * 32


def metadata(name, *, created=NOW, **more):
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-of-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": created.isoformat(),
    } | more


def service_manifest(name="smol", *, created=NOW, inspected=True, **spec):
    """An InferenceService; *inspected*: what its model's files say is known already."""
    made = {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "InferenceService",
        "metadata": metadata(name, created=created),
        "spec": {
            "model": {"uri": BASE},
            "lora": {"store": STORE, "maxLoras": 2},
            "compute": {"gpusPerReplica": 0},
        }
        | spec,
    }
    if inspected and made["spec"]["model"].get("uri"):
        made["status"] = {"model": facts_of(made) | {"uri": made["spec"]["model"]["uri"]}}
    return made


def facts_of(service):
    """What the inspect Job would say of the service's model: a small one."""
    read = InferenceService.model_validate(service)
    source = source_of(read, ())
    facts = SMALL | {"request": inspect_config(subject_of(read, source)).request}
    return ModelFacts.model_validate(facts).manifest()


def inferenceservice_of(**spec):
    return InferenceService.model_validate(service_manifest(**spec))


def expert_manifest(name="sql", *, job="sql", service="smol", created=NOW, **spec):
    return {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "Expert",
        "metadata": metadata(name, created=created),
        "spec": {
            "type": "Adapter",
            "sourceRef": {"kind": "FineTuneJob", "name": job},
            "inferenceServiceRef": {"name": service},
        }
        | spec,
    }


def model_expert(name="general", **more):
    """The demo's fallback: the base itself."""
    made = expert_manifest(name, type="Model", artifact={"uri": BASE}, **more)
    del made["spec"]["sourceRef"]
    return made


def complete_job(name="sql", *, digest="a" * 64, run=1, phase="Complete", **artifact):
    """A FineTuneJob with a complete run."""
    record = {
        "kind": "Adapter",
        "uri": f"{STORE}/{name}-{digest[:12]}",
        "digest": digest,
        "sizeBytes": 1000,
        "rank": 16,
        "base": BASE,
    } | artifact
    made = job_manifest(name=name)
    status = {
        "phase": phase,
        "artifact": record,
        "artifactRun": run,
        "dataset": {"digest": "d" * 64, "samples": 200},
        "resolved": {
            "strategy": "DDP",
            "precision": "FP32",
            "ranks": 2,
            "versions": [{"name": "trl", "value": "1.16"}],
        },
    }
    return made | {"metadata": made["metadata"] | {"uid": f"uid-of-job-{name}"}, "status": status}


def pod_manifest(
    name="smol-engine-1", *, service="smol", ready=True, container="c1", address="10.0.0.1", state=None, **status
):
    """A pod of the engine."""
    container_status = {
        "name": "engine",
        "image": "engine-cpu:1",
        "containerID": f"containerd://{container}" if container else "",
        "restartCount": 0,
        "started": ready,
        "state": state or {"running": {"startedAt": NOW.isoformat()}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name, labels={"largeforge.ai/inferenceservice": service}),
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": str(ready)},
            ],
            "containerStatuses": [container_status | status.pop("container_status", {})],
        }
        | status,
    }


def first_tokens(model):
    """The likeliest first tokens of a base, and other ones of an adapter on it."""
    moved = 1.5 if adapter_owner(model) else 0.0
    return {1: -0.5 - moved, 2: -1.5 + moved, 3: -3.0, 4: -4.0, 5: -5.0, 6: -8.0}


def probe_records(**result):
    """What a training has recorded of the base and the adapter above; *result* names other values of the latter."""
    recorded = {
        of: [{"id": token, "logprob": str(value)} for token, value in list(likeliest.items())[:5]]
        for of, likeliest in (("base", first_tokens("smol")), ("result", first_tokens("sql-aaaaaaaa")))
    }
    return [{"name": name, "promptDigest": "t" * 64} | recorded | result for name in PROBES]


@dataclass
class FakeEngines:
    """Engines that do what they are asked, unless told otherwise; they know adapters until their container ends."""

    served: dict[str, set[str]] = field(default_factory=dict)
    """Names, by address."""
    calls: list[tuple[str, ...]] = field(default_factory=list)
    troubles: dict[tuple[str, ...], str] = field(default_factory=dict)
    """What goes wrong: by (verb, address) or (verb, address, name)."""
    keys: set[str] = field(default_factory=set)
    measured: list[tuple[str, str]] = field(default_factory=list)
    """The measured requests, by address and model; they are not among the calls."""
    likeliest: dict[str, dict[int, float]] = field(default_factory=dict)
    """What a model says first to each fixed conversation, where it is not as `first_tokens` has it."""
    digests: dict[str, str] = field(default_factory=lambda: dict.fromkeys(PROBES, "t" * 64))
    """The digests of the conversations' tokens."""
    missing: set[str] = field(default_factory=set)
    """Adapters whose files the engine does not find."""
    said: str = "Paris"
    """The answer to a question."""

    def take(self):
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def _trouble(self, verb, address, name):
        said = self.troubles.get((verb, address, name)) or self.troubles.get((verb, address))
        return Trouble(said) if said else None

    async def models(self, address, *, key):
        self.keys.add(key)
        return self._trouble("list", address, "") or frozenset({"smol"} | self.served.get(address, set()))

    async def load(self, address, *, key, name, path):  # noqa: ARG002 - the protocol's
        self.calls.append(("load", address, name, path))
        trouble = self._trouble("load", address, name)
        if name in self.missing:
            trouble = Trouble(f"No adapter found for {path} (404)", Reason.ARTIFACT_NOT_FOUND)
        if trouble is None:
            self.served.setdefault(address, set()).add(name)
        return trouble

    async def unload(self, address, *, key, name):  # noqa: ARG002 - the protocol's
        self.calls.append(("unload", address, name))
        trouble = self._trouble("unload", address, name)
        if trouble is None:
            self.served.get(address, set()).discard(name)
        return trouble

    async def measure(self, address, *, key, model):  # noqa: ARG002 - the protocol's
        self.measured.append((address, model))
        return self._trouble("measure", address, model) or Measured(ttft_ms=120, tokens_per_second=31.25)

    async def probe(self, address, *, key, model):  # noqa: ARG002 - the protocol's
        self.calls.append(("probe", address, model))
        return self._trouble("probe", address, model)

    async def answers(self, address, *, key, model):  # noqa: ARG002 - the protocol's
        """Noted of adapters alone; the base is asked beside each of them."""
        if adapter_owner(model):
            self.calls.append(("answers", address, model))
        likeliest = self.likeliest.get(model) or first_tokens(model)
        return self._trouble("answers", address, model) or Answers(dict.fromkeys(PROBES, likeliest))

    async def tokens(self, address, *, key, model):  # noqa: ARG002 - the protocol's
        self.calls.append(("tokens", address, model))
        return self._trouble("tokens", address, model) or Tokens(self.digests)

    async def ask(self, address, *, key, model, prompt):  # noqa: ARG002 - the protocol's
        self.calls.append(("ask", address, model, prompt))
        return self._trouble("ask", address, model) or Said(self.said)


class World:
    """A fake cluster with the demo's service, the engines of its pods, and the operator's clock."""

    settings = SETTINGS
    master_key = MASTER_KEY

    def __init__(self, *objects):
        self.cluster = FakeCluster(claim("models"), *objects)
        self.engines = FakeEngines()
        self.reports = RouterReports()
        self.time: datetime = NOW

    def now(self):
        return self.time

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)

    def raw(self, plural, name):
        return self.cluster.objects[plural, NAMESPACE, name]

    def service(self, name="smol"):
        return InferenceService.model_validate(self.raw("inferenceservices", name))

    def expert(self, name="sql"):
        return Expert.model_validate(self.raw("experts", name))

    def said(self, of, kind):
        found = condition(of.status.conditions, kind)
        return found and (found.status, found.reason, found.message)

    def events(self):
        return [(e["regarding"]["name"], e["type"], e["reason"]) for e in self.cluster.all(EVENTS)]

    async def look(self, *names):
        """Look at the services and experts *names* (all, if none), until nothing is written any more."""
        again = {}
        for _ in range(10):
            before = len(self.cluster.writes)
            for plural, controller in (("inferenceservices", inferenceservice), ("experts", expert)):
                for kind, _, name in sorted(self.cluster.objects):
                    if kind == plural and (not names or name in names):
                        self._play_deployments()
                        again[name] = await controller.reconcile(Key(NAMESPACE, name), self)
            if len(self.cluster.writes) == before:
                return again
        raise AssertionError(f"it never rests: {self.cluster.writes[-10:]}")

    def _play_deployments(self):
        """Say in each Deployment's status what its controller would, of the pods that are there."""
        for (plural, namespace, name), raw in list(self.cluster.objects.items()):
            if plural == "deployments":
                owner = raw["metadata"]["labels"]["largeforge.ai/inferenceservice"]
                pods = [
                    p
                    for p in self.cluster.all(PODS)
                    if p["metadata"]["labels"].get("largeforge.ai/inferenceservice") == owner
                ]
                replicas = len(pods)
                status = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
                self.cluster.objects[plural, namespace, name] = raw | {"status": status | raw.get("played", {})}

    def inspect(self, **facts):
        """Let the newest inspect Job's pod end with its answer."""
        job = next(j for j in reversed(self.cluster.all(JOBS)) if "-inspect-" in j["metadata"]["name"])
        variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
        config = InspectConfig.model_validate_json(next(v["value"] for v in variables if v["name"] == QUESTION))
        found = ModelFacts.model_validate(SMALL | facts | {"request": config.request})
        message = InspectResult(outcome="Succeeded", request=config.request, model=found).message()
        self.answered(job, message)

    def uninspected(self, reason, message):
        """Let the newest inspect Job fail for good, with *reason* and *message*."""
        job = next(j for j in reversed(self.cluster.all(JOBS)) if "-inspect-" in j["metadata"]["name"])
        variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
        config = InspectConfig.model_validate_json(next(v["value"] for v in variables if v["name"] == QUESTION))
        error = ErrorDetail(reason=reason, message=message)
        said = InspectResult(outcome="Failed", request=config.request, error=error).message()
        self.answered(job, said, code=65)
        self.cluster.put(job | {"status": {"conditions": [over("Failed", at=self.time)]}})

    def answered(self, job, message, *, code=0):
        made = errand_pod(message, code=code, uid=job["metadata"]["uid"], name=f"{job['metadata']['name']}-x")
        made["metadata"] |= {"namespace": NAMESPACE, "labels": {JOB_NAME_LABEL: job["metadata"]["name"]}}
        self.cluster.put(made)

    def restart(self, name="smol-engine-1", *, container, ready, address="10.0.0.1"):
        """The pod's container ended, and the next one runs: it has forgotten its adapters."""
        self.engines.served.pop(address, None)
        again = {"restartCount": 1, "lastState": {"terminated": {"exitCode": 137, "reason": "Error"}}}
        self.cluster.put(pod_manifest(name, container=container, ready=ready, address=address, container_status=again))

    def edit(self, plural, name, **spec):
        raw = self.raw(plural, name)
        generation = raw["metadata"]["generation"] + 1
        self.cluster.put(raw | {"metadata": raw["metadata"] | {"generation": generation}, "spec": raw["spec"] | spec})


second_pod = partial(pod_manifest, "smol-engine-2", address="10.0.0.2", container="d1")
