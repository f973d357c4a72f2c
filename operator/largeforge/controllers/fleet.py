"""What the watches show of all objects together: how many are in which phase, and who holds GPUs for how long."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from largeforge.api.names import FINETUNEJOB_LABEL, INFERENCESERVICE_LABEL, QUANTIZEJOB_LABEL
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, PODS, QUANTIZEJOBS, Resource

KINDS: Mapping[Resource, str] = {
    FINETUNEJOBS: "FineTuneJob",
    QUANTIZEJOBS: "QuantizeJob",
    INFERENCESERVICES: "InferenceService",
    EXPERTS: "Expert",
}
"""Our kinds, as their objects name them."""
NO_PHASE = "None"
"""The phase of an object that has no status yet."""
_PARENTS = {
    FINETUNEJOB_LABEL: "FineTuneJob",
    QUANTIZEJOB_LABEL: "QuantizeJob",
    INFERENCESERVICE_LABEL: "InferenceService",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A pod that holds GPUs."""

    namespace: str
    kind: str
    devices: Mapping[str, int]
    """Its extended resources: GPUs, and what else nodes have of that sort."""
    since: float


class Fleet(Collector):
    """Counts over the objects that were seen last; as many entries as objects of ours and pods with GPUs.

    GPU time runs by this process's own clock, from when a pod was seen on a node: so the counter never goes back, and
    what a pod held before the operator began is another operator's to count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phases: dict[tuple[str, str, str], str] = {}
        self._held: dict[str, Held] = {}
        self._spent: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._gpu_resources: set[str] = set()

    def note(self, resource: Resource, body: Mapping[str, Any], *, gone: bool) -> None:
        """An object was seen to be so, or to have *gone*."""
        if resource in KINDS:
            self._note_phase(KINDS[resource], body, gone=gone)
        elif resource == PODS:
            self._note_pod(body, gone=gone)

    def _note_phase(self, kind: str, body: Mapping[str, Any], *, gone: bool) -> None:
        # Which resource is a GPU is written in our objects; a pod may be seen before its own.
        resource = body.get("spec", {}).get("compute", {}).get("gpuResource")
        if resource:
            self._gpu_resources.add(resource)
        key = (kind, body["metadata"]["namespace"], body["metadata"]["name"])
        if gone:
            self._phases.pop(key, None)
        else:
            self._phases[key] = body.get("status", {}).get("phase") or NO_PHASE

    def _note_pod(self, pod: Mapping[str, Any], *, gone: bool) -> None:
        uid = pod["metadata"]["uid"]
        holder = None if gone else holder_of(pod)
        known = self._held.get(uid)
        if known is not None and holder is None:
            del self._held[uid]
            self._spent[known.namespace, known.kind] += self._gpus(known) * (self._clock() - known.since)
        elif known is None and holder is not None:
            kind, devices = holder
            self._held[uid] = Held(pod["metadata"]["namespace"], kind, devices, self._clock())

    def _gpus(self, held: Held) -> int:
        return sum(count for name, count in held.devices.items() if name in self._gpu_resources)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads."""
        objects = GaugeMetricFamily(
            "largeforge_operator_objects", "Objects by kind and phase.", labels=("kind", "phase")
        )
        found = Counter((kind, phase) for (kind, _, _), phase in self._phases.items())
        for labels, count in sorted(found.items()):
            objects.add_metric(labels, count)
        yield objects
        # Not `namespace`: Prometheus gives that label to the operator's own.
        labels = ("object_namespace", "kind")
        held = GaugeMetricFamily("largeforge_operator_gpus", "GPUs that pods of ours hold on nodes.", labels=labels)
        spent = CounterMetricFamily(
            "largeforge_operator_gpu_seconds",
            "GPUs times seconds that pods of ours have held on nodes, those that still run included.",
            labels=labels,
        )
        now, total = self._clock(), self._spent.copy()
        gpus: Counter[tuple[str, str]] = Counter()
        for each in self._held.values():
            gpus[each.namespace, each.kind] += self._gpus(each)
            total[each.namespace, each.kind] += self._gpus(each) * (now - each.since)
        for holder, seconds in sorted(total.items()):
            held.add_metric(holder, gpus[holder])
            spent.add_metric(holder, seconds)
        yield held
        yield spent


def holder_of(pod: Mapping[str, Any]) -> tuple[str, dict[str, int]] | None:
    """The kind whose object *pod* belongs to, and its devices; None where it holds none, or none any more."""
    labels = pod["metadata"].get("labels", {})
    kind = next((kind for label, kind in _PARENTS.items() if label in labels), None)
    placed = pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    if kind is None or not placed:
        return None
    devices: Counter[str] = Counter()
    for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
        limits: Mapping[str, str] = container.get("resources", {}).get("limits", {})
        devices.update({name: int(amount) for name, amount in limits.items() if "/" in name and amount.isdigit()})
    return (kind, dict(devices)) if devices else None
