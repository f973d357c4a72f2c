"""The route table: built whole from the namespace's objects by a pure function, and read once for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from largeforge.api.expert import Endpoint as ExpertEndpoint
from largeforge.api.expert import Expert, Limits
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition, is_true
from largeforge.api.names import READY
from largeforge.router.cards import about, waiting
from largeforge.router.classifier import Rule, reach_of
from largeforge.router.classify import Matcher, matcher_of
from largeforge.router.defaults import Additions, additions
from largeforge.router.endpoints import Endpoint, Pod, by_service, endpoints_of
from largeforge.router.expertise import lesson, patterns, rule
from largeforge.router.external import External, ExternalError, Externals
from largeforge.router.learnt import Lesson
from largeforge.router.openai import AUTO, ModelCard, model_card, model_list

EngineKey = Callable[[InferenceService], str]
"""The API key of a service's engine; empty for an engine without one."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the requests for one name go, and what the Expert says of them."""

    name: str
    model: bytes
    """The name that the engine knows, as JSON."""
    authorization: bytes
    """The header line with the engine's key, or nothing."""
    pods: tuple[Pod, ...]
    created: int
    reason: str
    """Why a request that asks for this name gets it: `pinned` for an Expert, `base` for an InferenceService."""
    additions: Additions | None = None
    """What goes into a request where the client left it out."""
    most: int | None = None
    """Requests under way at a time; None is no bound."""
    timeout_seconds: float | None = None
    """From a request that is there whole to the end of its answer; None is no bound."""
    outside: bytes | None = None
    """Of an External Expert: what stands before `/v1` in the path, perhaps nothing. None for an engine of ours."""


@dataclass(frozen=True, slots=True)
class View:
    """All that the requests of one class of clients need to know of the namespace; what they may not use is not in it.

    Every view has the matcher of all experts: whom it finds counts where `rules` has it.
    """

    routes: Mapping[str, Route] = field(default_factory=dict)
    unready: Mapping[str, str] = field(default_factory=dict)
    """Why an Expert that exists cannot answer, by name."""
    disabled: frozenset[str] = frozenset()
    """Experts that their owner has taken out."""
    matcher: Matcher = field(default_factory=lambda: matcher_of(()))
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Of each Expert that `auto` may choose."""
    reach: float = 0.0
    """`classifier.reach_of` these."""
    fallback: Route | None = None
    fallback_unready: str | None = None
    """Why the only fallback experts cannot answer."""
    models: bytes = model_list([ModelCard(AUTO, 0)])
    """`GET /v1/models`."""
    cards: Mapping[str, bytes] = field(default_factory=lambda: {AUTO: model_card(ModelCard(AUTO, 0))})
    """`GET /v1/models/{id}`."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The namespace, as each client may see it; replaced whole."""

    everything: View = field(default_factory=View)
    """What a client sees that may use every Expert."""
    public: View = field(default_factory=View)
    """What a client sees that no Expert's `access` names."""
    by_client: Mapping[str, View] = field(default_factory=dict)
    """What those see that one names; clients with the same rights share a view."""
    lessons: tuple[Lesson, ...] = ()
    """What is learnt from each Expert that takes part, ready or not; by name."""
    generations: Mapping[str, int] = field(default_factory=dict)
    """The `metadata.generation` of each Expert that holds its name, ready or not."""
    externals: Mapping[str, External] = field(default_factory=dict)
    """Where each External Expert is answered that may be asked, whether it answers or not."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why an External Expert must not be asked, by name."""
    snapshot_age_seconds: float | None = field(default=None, compare=False)
    """How old the snapshot was that this comes from; None where it comes from the objects themselves."""

    def of(self, client: str) -> View:
        """What *client* sees."""
        return self.by_client.get(client, self.public)

    @property
    def routes(self) -> Mapping[str, Route]:
        """Every route."""
        return self.everything.routes

    @property
    def unready(self) -> Mapping[str, str]:
        """Every Expert that cannot answer, and why."""
        return self.everything.unready

    @property
    def pods(self) -> frozenset[Pod]:
        """Every pod that a request may go to."""
        return frozenset(pod for route in self.routes.values() for pod in route.pods)


@dataclass(slots=True)
class _Found:
    """What the objects come to, before anybody's rights are looked at."""

    routes: dict[str, Route] = field(default_factory=dict)
    unready: dict[str, str] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    experts: list[Expert] = field(default_factory=list)
    """Those that hold their names, the oldest first."""
    externals: dict[str, External] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def build(
    experts: Iterable[Expert],
    services: Iterable[InferenceService],
    slices: Iterable[Mapping[str, Any]],
    engine_key: EngineKey,
    externals: Externals | None = None,
) -> RouteTable:
    """The table of these objects; without *externals* no External Expert may be asked.

    Names are one space: of equal names the older object has it, whoever may use it.
    """
    by_name = {service.metadata.name: service for service in services}
    endpoints = {name: endpoints_of(name, of_service) for name, of_service in by_service(slices).items()}
    found = _Found()
    taken: set[str] = set()
    objects: list[Expert | InferenceService] = [*experts, *by_name.values()]
    for item in sorted(objects, key=_age):
        name = item.metadata.name
        names = item.served_names if isinstance(item, InferenceService) else [name]
        held = [each for each in names if each not in taken]
        if not held or item.metadata.deletion_timestamp is not None:
            continue
        taken.update(held)
        if isinstance(item, InferenceService):
            pods = tuple(endpoint.pod for endpoint in endpoints.get(name, ()))
            if pods:
                route = _route(item, name, pods, key=engine_key(item))
                found.routes |= {each: replace(route, name=each) for each in held}
            continue
        if item.spec.stage == "Archived":
            continue
        found.experts.append(item)
        service = by_name.get(item.spec.service_name)
        if not item.spec.routing.enabled:
            found.disabled.add(name)
        elif item.spec.endpoint is not None:
            _external(found, item, item.spec.endpoint, externals or Externals())
        elif (why := _unready(item, service)) is not None or service is None or item.status.placement is None:
            found.unready[name] = why or "not placed yet"
        elif pods := _placed(item, endpoints.get(service.metadata.name, ())):
            found.routes[name] = _route(item, item.status.placement.engine_name, pods, key=engine_key(service))
        else:
            found.unready[name] = f"no ready pod of InferenceService '{service.metadata.name}' has it loaded"
    return _table(found)


def _external(found: _Found, expert: Expert, endpoint: ExpertEndpoint, externals: Externals) -> None:
    """Where the Expert is answered, and its route if it is proven."""
    name = expert.metadata.name
    try:
        external = externals.of(expert, endpoint)
    except ExternalError as error:
        found.refused[name] = found.unready[name] = str(error)
        return
    found.externals[name] = external
    why = _not_ready(expert) or externals.problem(external)
    if why is not None:
        found.unready[name] = why
    else:
        found.routes[name] = _route(expert, external.model, (external.pod,), key=external.key, outside=external.prefix)


def _table(found: _Found) -> RouteTable:
    """One view for each set of Experts that some client may use."""
    matcher = matcher_of(
        tuple(
            (expert.metadata.name, patterns(expert))
            for expert in sorted(found.experts, key=lambda expert: expert.metadata.name)
            if expert.metadata.name in found.routes
        )
    )
    closed = {e.metadata.name: frozenset(e.spec.access.clients) for e in found.experts if e.spec.access.clients}
    views: dict[frozenset[str], View] = {}

    def view(hidden: frozenset[str]) -> View:
        if hidden not in views:
            views[hidden] = _view(found, matcher, hidden)
        return views[hidden]

    named = sorted(set().union(*closed.values()))
    return RouteTable(
        everything=view(frozenset()),
        public=view(frozenset(closed)),
        by_client={
            client: view(frozenset(name for name, allowed in closed.items() if client not in allowed))
            for client in named
        },
        externals=found.externals,
        refused=found.refused,
        lessons=tuple(
            lesson(expert)
            for expert in sorted(found.experts, key=lambda expert: expert.metadata.name)
            if expert.metadata.name not in found.disabled
        ),
        generations={expert.metadata.name: expert.metadata.generation for expert in found.experts},
    )


def _view(found: _Found, matcher: Matcher, hidden: frozenset[str]) -> View:
    routes = {name: route for name, route in found.routes.items() if name not in hidden}
    unready = {name: why for name, why in found.unready.items() if name not in hidden}
    fallbacks = [expert.metadata.name for expert in found.experts if expert.spec.routing.fallback]
    by_name = {expert.metadata.name: expert for expert in found.experts}
    rules = {e.metadata.name: rule(e) for e in found.experts if e.metadata.name in routes}
    cards = [
        ModelCard(AUTO, 0),
        *(ModelCard(name, routes[name].created, largeforge=about(by_name.get(name))) for name in sorted(routes)),
    ]
    return View(
        routes=routes,
        unready=unready,
        disabled=frozenset(found.disabled - hidden),
        matcher=matcher,
        rules=rules,
        reach=reach_of(rules.values()),
        fallback=next((routes[name] for name in fallbacks if name in routes), None),
        fallback_unready=next((f"expert '{name}': {unready[name]}" for name in fallbacks if name in unready), None),
        models=model_list(cards, [waiting(by_name[name], unready[name]) for name in sorted(unready)]),
        cards={card.id: model_card(card) for card in cards},
    )


def _age(item: Expert | InferenceService) -> tuple[datetime, str, str]:
    """Older first; an object without a time, from a file, is the youngest."""
    return (item.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC), item.kind, item.metadata.name)


def _unready(expert: Expert, service: InferenceService | None) -> str | None:
    """Why *expert* is not ready, in its own words; None where it is."""
    why = _not_ready(expert)
    if why is None and service is None:
        return f"InferenceService '{expert.spec.service_name}' does not exist"
    return why


def _not_ready(expert: Expert) -> str | None:
    if is_true(expert.status.conditions, READY):
        return None
    ready = condition(expert.status.conditions, READY)
    return (ready and ready.message) or "not observed yet"


def _placed(expert: Expert, endpoints: Iterable[Endpoint]) -> tuple[Pod, ...]:
    """The ready pods that have it loaded."""
    placement = expert.status.placement
    loaded = {pod.uid for pod in placement.pods if pod.loaded and pod.uid} if placement else set()
    return tuple(endpoint.pod for endpoint in endpoints if endpoint.uid in loaded)


def _route(
    item: Expert | InferenceService, model: str, pods: tuple[Pod, ...], *, key: str, outside: bytes | None = None
) -> Route:
    created = item.metadata.creation_timestamp
    limits = item.spec.limits if isinstance(item, Expert) else Limits()
    return Route(
        name=item.metadata.name,
        model=msgspec.json.encode(model),
        authorization=f"authorization: Bearer {key}\r\n".encode() if key else b"",
        pods=pods,
        created=int(created.timestamp()) if created else 0,
        reason="pinned" if isinstance(item, Expert) else "base",
        additions=additions(item.spec.defaults) if isinstance(item, Expert) else None,
        most=limits.max_concurrent_requests,
        timeout_seconds=limits.timeout_seconds,
        outside=outside,
    )
