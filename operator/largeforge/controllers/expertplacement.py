"""Where an Expert's versions are: which pods have which, what to ask of the others, and when the name changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from largeforge.api.expert import Expert, Placement, PodPlacement, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import ObjectMeta
from largeforge.controllers.engine import Call, Listing, Trouble
from largeforge.controllers.enginepods import EnginePod
from largeforge.controllers.expertrules import path_in_store
from largeforge.controllers.rounds import Asked


@dataclass(frozen=True, slots=True)
class Observed(Asked):
    """What a decision is made of, beside the object."""

    job: FineTuneJob | None = None
    service: InferenceService | None = None
    namesake: ObjectMeta | None = None
    """The InferenceService of the Expert's own name."""
    siblings: Sequence[Expert] = ()
    """The other Experts on the service."""
    pods: Sequence[EnginePod] = ()
    """The service's."""
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

    def proven(self, pod: EnginePod, version: Resolved) -> bool:
        """Whether the pod's container has *version* and answered with it, in this pass or in an earlier one."""
        probe = Call("probe", pod, version.engine_name)
        if probe in self.observed.results:
            return self.observed.results[probe] is None
        placement = self.expert.status.placement
        if placement is None or placement.engine_name != version.engine_name or self._lost(pod, version):
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

    def trouble(self, pod: EnginePod, version: Resolved) -> str | None:
        """Why a ready pod has not proven *version*, in the engine's words."""
        if not pod.ready or self.proven(pod, version):
            return None
        said = (
            self.observed.results.get(Call("probe", pod, version.engine_name)),
            self.observed.results.get(self._load(pod, version)),
            self.observed.listings.get(pod.uid),
        )
        return next((each.message for each in said if isinstance(each, Trouble)), None)

    def calls(self) -> Iterator[Call]:
        """What is still to be asked, of all pods at once; each only once in a pass."""
        for version in filter(None, (self.wish, self.old)):
            for pod in self.ready:
                call = self._next(pod, version)
                if call is not None and call not in self.observed.results:
                    yield call

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
            desired=len(pods),
            loaded=loaded,
            summary=f"{loaded}/{len(pods)}",
            pods=pods,
        )

    def _entry(self, pod: EnginePod, served: Resolved) -> PodPlacement:
        loaded = self.proven(pod, served)
        return PodPlacement(
            name=pod.name,
            uid=pod.uid,
            container_id=pod.container_id if loaded else "",
            loaded=loaded,
            error=self.trouble(pod, self.wish or served),
        )

    def _next(self, pod: EnginePod, version: Resolved) -> Call | None:
        if self.proven(pod, version):
            return None
        if self.loaded(pod, version):
            return Call("probe", pod, version.engine_name)
        # An engine that does not even list its models is not asked for more: it would hold the others up.
        asked = isinstance(self.observed.listings.get(pod.uid), frozenset)
        return self._load(pod, version) if asked else None

    def _load(self, pod: EnginePod, version: Resolved) -> Call:
        service = self.observed.service
        path = path_in_store(version, service) if service else None
        return Call("load", pod, version.engine_name, path or "")

    def _lost(self, pod: EnginePod, version: Resolved) -> bool:
        """Whether the engine says that it does not have *version*; one that says nothing keeps what is recorded."""
        listing = self.observed.listings.get(pod.uid)
        return (
            self.expert.spec.type == "Adapter" and isinstance(listing, frozenset) and version.engine_name not in listing
        )
