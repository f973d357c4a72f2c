"""The route table: built whole from the namespace's objects by a pure function, and read once for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from largeforge.api.expert import Expert, Limits
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import condition, is_true
from largeforge.api.names import INFERENCESERVICE_LABEL, READY
from largeforge.resources.names import engine_name
from largeforge.router.classify import DOMAIN_WEIGHT, KEYWORD_WEIGHT, Matcher, Pattern, matcher_of
from largeforge.router.defaults import Additions, additions
from largeforge.router.openai import AUTO, ModelCard, model_card, model_list

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PORT_NAME = "http"

EngineKey = Callable[[InferenceService], str]
"""The API key of a service's engine; empty for an engine without one."""


class Pod(NamedTuple):
    """Where an engine listens."""

    host: str
    port: int


class Endpoint(NamedTuple):
    """A ready pod of a service."""

    uid: str
    pod: Pod


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


@dataclass(frozen=True, slots=True)
class View:
    """All that the requests of one class of clients need to know of the namespace; what they may not use is not in it.

    Every view has the matcher of all experts: whom it finds counts where `routes` has it.
    """

    routes: Mapping[str, Route] = field(default_factory=dict)
    unready: Mapping[str, str] = field(default_factory=dict)
    """Why an Expert that exists cannot answer, by name."""
    disabled: frozenset[str] = frozenset()
    """Experts that their owner has taken out."""
    matcher: Matcher = field(default_factory=lambda: matcher_of(()))
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
    generations: Mapping[str, int] = field(default_factory=dict)
    """The `metadata.generation` of each Expert that holds its name, ready or not."""
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


def build(
    experts: Iterable[Expert],
    services: Iterable[InferenceService],
    slices: Iterable[Mapping[str, Any]],
    engine_key: EngineKey,
) -> RouteTable:
    """The table of these objects. Names are one space: of equal names the older object has it, whoever may use it."""
    by_name = {service.metadata.name: service for service in services}
    endpoints = {name: _endpoints(name, of_service) for name, of_service in _by_service(slices).items()}
    found = _Found()
    taken: set[str] = set()
    objects: list[Expert | InferenceService] = [*experts, *by_name.values()]
    for item in sorted(objects, key=_age):
        name = item.metadata.name
        if name in taken or item.metadata.deletion_timestamp is not None:
            continue
        taken.add(name)
        if isinstance(item, InferenceService):
            pods = tuple(endpoint.pod for endpoint in endpoints.get(name, ()))
            if pods:
                found.routes[name] = _route(item, item, name, pods, engine_key)
            continue
        if item.spec.stage == "Archived":
            continue
        found.experts.append(item)
        service = by_name.get(item.spec.service_name)
        if not item.spec.routing.enabled:
            found.disabled.add(name)
        elif (why := _unready(item, service)) is not None or service is None or item.status.placement is None:
            found.unready[name] = why or "not placed yet"
        elif pods := _placed(item, endpoints.get(service.metadata.name, ())):
            found.routes[name] = _route(item, service, item.status.placement.engine_name, pods, engine_key)
        else:
            found.unready[name] = f"no ready pod of InferenceService '{service.metadata.name}' has it loaded"
    return _table(found)


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
        generations={expert.metadata.name: expert.metadata.generation for expert in found.experts},
    )


def _view(found: _Found, matcher: Matcher, hidden: frozenset[str]) -> View:
    routes = {name: route for name, route in found.routes.items() if name not in hidden}
    unready = {name: why for name, why in found.unready.items() if name not in hidden}
    fallbacks = [expert.metadata.name for expert in found.experts if expert.spec.routing.fallback]
    cards = [ModelCard(AUTO, 0), *(ModelCard(name, routes[name].created) for name in sorted(routes))]
    return View(
        routes=routes,
        unready=unready,
        disabled=frozenset(found.disabled - hidden),
        matcher=matcher,
        fallback=next((routes[name] for name in fallbacks if name in routes), None),
        fallback_unready=next((f"expert '{name}': {unready[name]}" for name in fallbacks if name in unready), None),
        models=model_list(cards),
        cards={card.id: model_card(card) for card in cards},
    )


def patterns(expert: Expert) -> tuple[Pattern, ...]:
    """What speaks for an expert in a text."""
    routing = expert.spec.routing
    return (
        *(Pattern(keyword.pattern, keyword.type, KEYWORD_WEIGHT) for keyword in routing.keywords),
        *(Pattern(domain, "Word", DOMAIN_WEIGHT) for domain in routing.domains),
    )


def _age(item: Expert | InferenceService) -> tuple[datetime, str, str]:
    """Older first; an object without a time, from a file, is the youngest."""
    return (item.metadata.creation_timestamp or datetime.max.replace(tzinfo=UTC), item.kind, item.metadata.name)


def _unready(expert: Expert, service: InferenceService | None) -> str | None:
    """Why *expert* is not ready, in its own words; None where it is."""
    if not is_true(expert.status.conditions, READY):
        ready = condition(expert.status.conditions, READY)
        return (ready and ready.message) or "not observed yet"
    if service is None:
        return f"InferenceService '{expert.spec.service_name}' does not exist"
    return None


def _placed(expert: Expert, endpoints: Iterable[Endpoint]) -> tuple[Pod, ...]:
    """The ready pods that have it loaded."""
    placement = expert.status.placement
    loaded = {pod.uid for pod in placement.pods if pod.loaded and pod.uid} if placement else set()
    return tuple(endpoint.pod for endpoint in endpoints if endpoint.uid in loaded)


def _route(
    item: Expert | InferenceService,
    service: InferenceService,
    model: str,
    pods: tuple[Pod, ...],
    engine_key: EngineKey,
) -> Route:
    key = engine_key(service)
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
    )


def _by_service(slices: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The slices of each service's own engine Service, those of IPv4 first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(slices, key=lambda s: (s.get("addressType", ""), s["metadata"].get("name", ""))):
        labels = item["metadata"].get("labels") or {}
        service = labels.get(INFERENCESERVICE_LABEL)
        if service and labels.get(SERVICE_NAME_LABEL) == engine_name(service):
            found.setdefault(service, []).append(item)
    return found


def _endpoints(service: str, slices: Iterable[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
    """The ready endpoints, each pod once (a dual-stack pod is in two slices)."""
    found: dict[str, Endpoint] = {}
    for item in slices:
        port = _port(item)
        for endpoint in item.get("endpoints") or ():
            # No word on readiness means ready, says the API.
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            if port is None or not ready or not endpoint.get("addresses"):
                continue
            address = endpoint["addresses"][0]
            uid = (endpoint.get("targetRef") or {}).get("uid", "")
            found.setdefault(uid or f"{service}/{address}", Endpoint(uid, Pod(address, port)))
    return tuple(found.values())


def _port(item: Mapping[str, Any]) -> int | None:
    ports = item.get("ports") or ()
    named = next((entry for entry in ports if entry.get("name") == PORT_NAME), None)
    chosen = named or next(iter(ports), None)
    return chosen.get("port") if chosen else None
