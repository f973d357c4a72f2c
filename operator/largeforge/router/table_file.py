"""The route table from a file, for a laptop, tests and benchmarks: Experts, and where their engines listen.

docs/router.md describes the format. The objects are completed to what a cluster would show, so the same function builds
the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError

from largeforge.api.expert import Expert
from largeforge.api.expertstatus import Placement, PodPlacement
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.meta import Condition, ObjectMeta
from largeforge.api.model import LargeForgeName, StrictModel
from largeforge.api.names import INFERENCESERVICE_LABEL, READY, Reason
from largeforge.resources.names import engine_name
from largeforge.router.endpoints import PORT_NAME, SERVICE_NAME_LABEL
from largeforge.router.external import Externals
from largeforge.router.table import RouteTable, build


class TableFileError(Exception):
    """The file cannot be used."""


class Endpoint(StrictModel):
    """Where one engine listens."""

    service: LargeForgeName
    """The InferenceService that it belongs to."""
    url: Annotated[str, Field(max_length=512)]
    """`http://host:port`."""
    key: str = ""
    """Its API key; empty where it wants none."""


class _Endpoints(StrictModel):
    endpoints: list[Endpoint]


def load(path: Path, externals: Externals | None = None) -> RouteTable:
    """The table that the file describes; `TableFileError` says what is wrong with it."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        return table(documents, externals)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise TableFileError(f"{path}: {_message(error)}") from error


def table(documents: Iterable[Any], externals: Externals | None = None) -> RouteTable:
    """The table of a file's documents, each an object, a list of objects, or `endpoints: [...]`."""
    experts: list[Expert] = []
    endpoints: list[Endpoint] = []
    for item in _flat(documents):
        if not isinstance(item, dict):
            raise ValueError(f"expected objects, found {type(item).__name__}")  # noqa: TRY004 - an error of the file
        if item.get("kind") == "Expert":
            experts.append(Expert.model_validate(item))
        elif "endpoints" in item:
            endpoints.extend(_Endpoints.model_validate(item).endpoints)
        elif item.get("kind") != "InferenceService":  # an example's other manifest, which says nothing that is needed
            raise ValueError(f"kind {item.get('kind')!r}: write Expert, InferenceService, or a list named endpoints")
    known = {endpoint.service for endpoint in endpoints}
    for expert in experts:
        service = expert.spec.service_name
        if expert.spec.endpoint is None and service not in known:
            raise ValueError(f"Expert '{expert.metadata.name}': no endpoint has service '{service}'; add one")
    keys = {endpoint.service: endpoint.key for endpoint in endpoints}
    return build(
        [_placed(expert, endpoints, age=age) for age, expert in enumerate(experts)],
        [_service(name) for name in sorted(known)],
        [_slice(endpoint, index) for index, endpoint in enumerate(endpoints)],
        lambda service: keys[service.metadata.name],
        externals,
    )


def _flat(documents: Iterable[Any]) -> Iterable[Any]:
    for document in documents:
        if isinstance(document, list):
            yield from document
        elif isinstance(document, dict) and document.get("kind") == "List":
            yield from document.get("items") or ()
        elif document is not None:
            yield document


def _placed(expert: Expert, endpoints: Iterable[Endpoint], *, age: int) -> Expert:
    """*expert* as if it were ready on all its service's endpoints; earlier in the file is older."""
    service = expert.spec.service_name
    engine = expert.metadata.name if expert.spec.type == "Adapter" else service
    if expert.status.placement is not None:
        engine = expert.status.placement.engine_name
    uids = [_uid(index) for index, endpoint in enumerate(endpoints) if endpoint.service == service]
    placement = Placement(
        engine_name=engine,
        desired=len(uids),
        loaded=len(uids),
        summary=f"{len(uids)}/{len(uids)}",
        pods=[PodPlacement(name=uid, uid=uid, loaded=True) for uid in uids],
    )
    created = expert.metadata.creation_timestamp or datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=age)
    ready = Condition(type=READY, status="True", reason=Reason.READY)
    return expert.model_copy(
        update={
            "metadata": expert.metadata.model_copy(update={"creation_timestamp": created}),
            "status": expert.status.model_copy(update={"placement": placement, "conditions": [ready]}),
        }
    )


def _service(name: str) -> InferenceService:
    """A service of that name; younger than every Expert, and its spec is not looked at."""
    return InferenceService.model_validate(
        {"metadata": ObjectMeta(name=name).manifest(), "spec": {"model": {"uri": f"pvc://{name}"}}}
    )


def _slice(endpoint: Endpoint, index: int) -> dict[str, Any]:
    """The EndpointSlice that a cluster would have for it."""
    url = urlsplit(endpoint.url)
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
        raise ValueError(f"endpoints[{index}].url: write http://<host>:<port> (got {endpoint.url!r})")
    labels = {INFERENCESERVICE_LABEL: endpoint.service, SERVICE_NAME_LABEL: engine_name(endpoint.service)}
    return {
        "metadata": {"name": f"{endpoint.service}-{index}", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": PORT_NAME, "port": url.port or 80}],
        "endpoints": [{"addresses": [url.hostname], "targetRef": {"uid": _uid(index)}}],
    }


def _uid(index: int) -> str:
    return f"endpoint-{index}"


def _message(error: Exception) -> str:
    """One line, naming the field."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{error.title}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return " ".join(str(error).split())
