"""Where the engines of a namespace listen, out of its EndpointSlices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from largeforge.api.names import INFERENCESERVICE_LABEL
from largeforge.resources.names import engine_name

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PORT_NAME = "http"


class Pod(NamedTuple):
    """Where an engine listens: a pod of the cluster, or the server of an External Expert."""

    host: str
    port: int
    external: bool = False
    """Whether it is outside: not asked for its load, and reached by a name."""
    tls: bool = False
    """Whether it speaks TLS; a pod of the cluster does not."""


class Endpoint(NamedTuple):
    """A ready pod of a service."""

    uid: str
    pod: Pod


def by_service(slices: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The slices of each service's own engine Service, those of IPv4 first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in sorted(slices, key=lambda s: (s.get("addressType", ""), s["metadata"].get("name", ""))):
        labels = item["metadata"].get("labels") or {}
        service = labels.get(INFERENCESERVICE_LABEL)
        if service and labels.get(SERVICE_NAME_LABEL) == engine_name(service):
            found.setdefault(service, []).append(item)
    return found


def endpoints_of(service: str, slices: Iterable[Mapping[str, Any]]) -> tuple[Endpoint, ...]:
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
