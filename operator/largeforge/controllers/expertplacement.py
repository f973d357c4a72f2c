"""Where an Expert's versions are: which pods have which, what to ask of the others, and when the name changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Placement, PodPlacement, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import ObjectMeta
from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers.engine import Answers, Call, Listing, Outcome, Said, Trouble
from largeforge.controllers.enginepods import EnginePod
from largeforge.controllers.expertfiles import Files
from largeforge.controllers.expertproof import judge, judge_answer, judge_model, probe_digest
from largeforge.controllers.expertrules import path_in_pod
from largeforge.controllers.rounds import Asked
from largeforge.controllers.routerreports import Report


@dataclass(frozen=True, slots=True)
class Observed(Asked):
    """What a decision is made of, beside the object."""

    job: FineTuneJob | QuantizeJob | None = None
    service: InferenceService | None = None
    namesake: ObjectMeta | None = None
    """The oldest InferenceService that is served under the Expert's own name."""
    siblings: Sequence[Expert] = ()
    """The other Experts on the service."""
    pods: Sequence[EnginePod] = ()
    """The service's."""
    files: Files = field(default_factory=Files)
    """What is asked of its files."""
    report: Report = None
    """What the namespace's routers say of it."""
    listings: Mapping[str, Listing] = field(default_factory=dict)
    """What the engines of ready pods serve, by the pod's uid; asked only for adapters."""


@dataclass(frozen=True, slots=True)
class Placing:
    """One Expert's versions against the pods of its service."""

    expert: Expert
    observed: Observed
    wish: Resolved | None
    """What should be served; None where there is nothing, or nothing that fits."""
    old: Resolved | None
    """What is served as yet and still fits, where that is another version."""

    @property
    def ready(self) -> list[EnginePod]:
        """The pods that can be asked."""
        return [pod for pod in self.observed.pods if pod.ready]

    @property
    def served(self) -> Resolved | None:
        """What routers are sent to: the wish, once every pod that served the old version has proven it."""
        if self.wish is None or self.old is None:
            return self.wish or self.old
        holders = [pod for pod in self.ready if self.proven(pod, self.old)]
        proven = [pod for pod in holders or self.ready if self.proven(pod, self.wish)]
        return self.wish if proven and len(proven) >= len(holders) else self.old

    @property
    def proving(self) -> bool:
        """Whether a pod has proven a version in this pass."""
        versions = [version for version in (self.wish, self.old) if version is not None]
        return any(
            self._is_asked(pod, version) and self._verdict(pod, version) is None
            for pod in self.ready
            for version in versions
        )

    def proven(self, pod: EnginePod, version: Resolved) -> bool:
        """Whether the pod's container has *version* and proved it, in this pass or in an earlier one."""
        if self._is_asked(pod, version):
            return self._verdict(pod, version) is None
        placement = self.expert.status.placement
        if placement is None or placement.engine_name != version.engine_name or self._lost(pod, version):
            return False
        if placement.probe != probe_digest(self.expert.spec.probe):
            return False
        return any(p.loaded and p.uid == pod.uid and p.container_id == pod.container_id for p in placement.pods)

    def loaded(self, pod: EnginePod, version: Resolved) -> bool:
        """Whether the pod has *version*, proven or not."""
        if self.expert.spec.type == "Model" or self.proven(pod, version):
            return True
        if self._load(pod, version) in self.observed.results:
            return self.observed.results[self._load(pod, version)] is None
        listing = self.observed.listings.get(pod.uid)
        return isinstance(listing, frozenset) and version.engine_name in listing

    def trouble(self, pod: EnginePod, version: Resolved) -> Trouble | None:
        """Why a ready pod has not proven *version*: in the engine's words, or what its answers come to."""
        if not pod.ready or self.proven(pod, version):
            return None
        said: tuple[object, ...] = (
            self._verdict(pod, version),
            self.observed.results.get(self._load(pod, version)),
            self.observed.listings.get(pod.uid),
        )
        return next((each for each in said if isinstance(each, Trouble)), None)

    def calls(self) -> Iterator[Call]:
        """What is still to be asked, of all pods at once; each only once in a pass."""
        for version in filter(None, (self.wish, self.old)):
            for pod in self.ready:
                yield from (call for call in self._next(pod, version) if call not in self.observed.results)

    def placement(self) -> Placement | None:
        """What routers read."""
        served = self.served
        if served is None:
            return None
        pods = [self._entry(pod, served) for pod in self.observed.pods]
        loaded = sum(pod.loaded for pod in pods)
        return Placement(
            engine_name=served.engine_name,
            resolved=served,
            service=self.expert.spec.service_name,
            probe=probe_digest(self.expert.spec.probe),
            desired=len(pods),
            loaded=loaded,
            summary=f"{loaded}/{len(pods)}",
            pods=pods,
        )

    def _entry(self, pod: EnginePod, served: Resolved) -> PodPlacement:
        loaded = self.proven(pod, served)
        trouble = self.trouble(pod, self.wish or served)
        return PodPlacement(
            name=pod.name,
            uid=pod.uid,
            container_id=pod.container_id if loaded else "",
            loaded=loaded,
            error=trouble.message if trouble is not None else None,
        )

    def _next(self, pod: EnginePod, version: Resolved) -> Sequence[Call]:
        if self.proven(pod, version):
            return ()
        if self.loaded(pod, version):
            return self._evidence(pod, version)
        # An engine that does not even list its models is not asked for more: it would hold the others up.
        asked = isinstance(self.observed.listings.get(pod.uid), frozenset)
        return (self._load(pod, version),) if asked else ()

    def _load(self, pod: EnginePod, version: Resolved) -> Call:
        service = self.observed.service
        return Call("load", pod, version.engine_name, path_in_pod(version, service) if service else "")

    def _evidence(self, pod: EnginePod, version: Resolved) -> Sequence[Call]:
        """All that a verdict rests on, asked at the same time."""
        probe = self.expert.spec.probe
        asked = () if probe is None else (Call("ask", pod, version.engine_name, prompt=probe.prompt),)
        if self.expert.spec.type == "Model":
            first = Call("answers" if version.probes else "probe", pod, version.engine_name)
            return (first, *asked)
        base = self.expert.spec.service_name
        return (
            Call("answers", pod, version.engine_name),
            Call("answers", pod, base),
            Call("answers", pod, base, turn=2),
            *asked,
        )

    def _is_asked(self, pod: EnginePod, version: Resolved) -> bool:
        return all(call in self.observed.results for call in self._evidence(pod, version))

    def _verdict(self, pod: EnginePod, version: Resolved) -> Trouble | None:
        """What is wrong by the answers of this pass; None where nothing is, or where they are not there."""
        calls = self._evidence(pod, version)
        outcomes = [self.observed.results.get(call) for call in calls]
        failed = next((each for each in outcomes if isinstance(each, Trouble)), None)
        if failed is not None:
            return failed
        return self._judged(version, outcomes) or self._answered(outcomes)

    def _judged(self, version: Resolved, outcomes: Sequence[Outcome]) -> Trouble | None:
        match [each for each in outcomes if isinstance(each, Answers)]:
            case [adapter, base, again]:
                return judge(version, base=base, again=again, adapter=adapter)
            case [model]:
                return judge_model(version, model)
            case _:
                return None

    def _answered(self, outcomes: Sequence[Outcome]) -> Trouble | None:
        probe, said = self.expert.spec.probe, next((each for each in outcomes if isinstance(each, Said)), None)
        return None if probe is None or said is None else judge_answer(probe, said)

    def _lost(self, pod: EnginePod, version: Resolved) -> bool:
        """Whether the engine says that it does not have *version*; one that says nothing keeps what is recorded."""
        listing = self.observed.listings.get(pod.uid)
        return (
            self.expert.spec.type == "Adapter" and isinstance(listing, frozenset) and version.engine_name not in listing
        )
