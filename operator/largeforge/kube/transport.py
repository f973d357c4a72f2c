"""Requests to the API server: credentials, pool, timeouts, and the one border where its errors become ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from largeforge.kube.cluster import ClusterError, Conflict, Invalid, Manifest, Resource
from largeforge.kube.traffic import Observe, tracing

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
BUSY_TRIES = 5
BUSY_LONGEST = 30.0
"""Seconds; a server that asks for more is asked again after so many."""
POOL = 32
"""Connections; watches hold one each."""

JSON = "application/json"
APPLY = "application/apply-patch+yaml"

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_UNAUTHORISED = re.compile(r'User "[^"]*" cannot ')
_NAMESPACE_TERMINATING = "NamespaceTerminating"


class Missing(ClusterError):  # noqa: N818 - becomes None or success wherever the verb has such an answer
    """There is no such object, namespace or kind."""

    reason = "NotFound"


class Expired(ClusterError):  # noqa: N818 - a watch lists again, nobody else sees it
    """The server no longer knows this resourceVersion."""

    reason = "Expired"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Manifest | None = None
    media: str = JSON
    accept: str = JSON

    def __str__(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}"


class Transport:
    """Sends requests; made by `open_transport`."""

    def __init__(
        self,
        configuration: Configuration,
        rest: RESTClientObject,
        *,
        user_agent: str,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self._configuration = configuration
        self._rest = rest
        self._user_agent = user_agent
        self._guard = guard

    async def call(self, request: Request) -> Manifest:
        """The answer; waits as long as a busy server asks (429, or any 5xx with Retry-After), but not for ever."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS)
        for attempt in range(1, BUSY_TRIES + 1):
            try:
                async with await self.send(request, timeout) as response:
                    content = await response.read()
            except TimeoutError as exc:
                raise ClusterError(f"{request}: no answer in {REQUEST_SECONDS:.0f} s") from exc
            except (aiohttp.ClientError, OSError) as exc:
                raise ClusterError(f"{request}: {exc}") from exc
            pause = retry_after(response.status, response.headers)
            if pause is None or attempt == BUSY_TRIES:
                break
            await asyncio.sleep(pause)
        if response.status >= 400:
            raise error(response.status, content)
        try:
            answer: Manifest = json.loads(content)
        except ValueError as exc:
            raise ClusterError(f"{request}: the answer is no JSON") from exc
        return answer

    async def send(self, request: Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:  # noqa: ASYNC109
        """The raw response, its body unread; the transport's own exceptions, and the guard's before a write."""
        query = f"?{urlencode(request.query)}" if request.query else ""
        headers = {"Accept": request.accept, "Content-Type": request.media, "User-Agent": self._user_agent}
        bearer = (await self._configuration.auth_settings()).get("BearerToken")
        if bearer and bearer["value"]:
            headers["Authorization"] = bearer["value"]
        if self._guard is not None and request.method != "GET":
            self._guard()  # last, and for each try: a busy server may have let us wait for a minute
        answer = await self._rest.request(  # type: ignore[no-untyped-call]
            request.method,
            f"{self._configuration.host}{request.path}{query}",
            headers=headers,
            body=request.body,
            _request_timeout=timeout,
        )
        response: aiohttp.ClientResponse = answer.response
        return response


@dataclass(frozen=True, slots=True)
class Access:
    """Where the API server is and how one shows who one is: for kopf, which has a client of its own."""

    server: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    token: str | None
    insecure: bool
    proxy: str | None


async def access() -> Access:
    """What `open_transport` would use now; tokens of pods change by the hour. Raises `ClusterError` as that does."""
    configuration = await _load()
    bearer = (await configuration.auth_settings()).get("BearerToken")
    token = bearer["value"] if bearer else None
    return Access(
        server=configuration.host,
        ca_file=configuration.ssl_ca_cert,
        certificate_file=configuration.cert_file,
        key_file=configuration.key_file,
        token=token.partition(" ")[2] or token if token else None,
        insecure=not configuration.verify_ssl,
        proxy=configuration.proxy,
    )


@asynccontextmanager
async def open_transport(
    *,
    user_agent: str,
    context: str | None = None,
    observe: Observe | None = None,
    guard: Callable[[], None] | None = None,
) -> AsyncIterator[Transport]:
    """A transport to the cluster that KUBECONFIG names, else the one of this pod, else that of `~/.kube/config`.

    *context* is one of the kubeconfig, its current one by default; *observe* is told of each request; *guard* is called
    before each write, and what it raises keeps the write back. Raises `ClusterError` where there are no usable
    credentials.
    """
    configuration = await _load(context)
    if observe is not None:
        configuration.trace_configs = [tracing(observe)]
    rest = RESTClientObject(configuration)
    try:
        yield Transport(configuration, rest, user_agent=user_agent, guard=guard)
    finally:
        await rest.close()


async def _load(context: str | None = None) -> Configuration:
    configuration = Configuration()
    configuration.connection_pool_maxsize = POOL
    # An API server is reached directly whatever the environment says of proxies; a kubeconfig may name one.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        if context is None and _within_pod():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=_kubeconfig(), context=context, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as exc:
        raise ClusterError(f"no credentials for a cluster: {exc}; set KUBECONFIG") from exc
    return configuration


def default_namespace(context: str | None = None) -> str:
    """The namespace that kubectl would use: the context's own, or this pod's; `default` where none is named.

    Raises `ClusterError` where there is no usable kubeconfig.
    """
    if context is None and _within_pod():
        return _POD_NAMESPACE.read_text().strip()
    try:
        contexts, current = list_kube_config_contexts(_kubeconfig())  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as exc:
        raise ClusterError(f"no credentials for a cluster: {exc}; set KUBECONFIG") from exc
    chosen = current if context is None else next((c for c in contexts if c["name"] == context), None)
    if chosen is None:
        raise ClusterError(f"no context {context!r} in {_kubeconfig()}; kubectl config get-contexts lists them")
    return str(chosen["context"].get("namespace") or "default")


def _within_pod() -> bool:
    return "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ


def _kubeconfig() -> str:
    return os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config"))


def path(resource: Resource, namespace: str, name: str = "") -> str:
    """The path of an object, or of all of a namespace ("" for all of them)."""
    root = "/apis" if "/" in resource.api_version else "/api"
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    tail = f"/{quote(name, safe='')}" if name else ""
    return f"{root}/{resource.api_version}{scope}/{resource.plural}{tail}"


def error(status: int, content: bytes) -> ClusterError:
    """The exception for an answer of *status*; its text is the server's."""
    try:
        said: dict[str, Any] = json.loads(content)
    except ValueError:
        said = {}
    message = str(said.get("message") or content[:200].decode(errors="replace")).strip() or f"HTTP {status}"
    causes = {c.get("reason") for c in (said.get("details") or {}).get("causes", [])}
    kinds: dict[int, type[ClusterError]] = {400: Invalid, 404: Missing, 409: Conflict, 410: Expired, 422: Invalid}
    if status in kinds:
        return kinds[status](message)
    if status == 403 and not _UNAUTHORISED.search(message) and _NAMESPACE_TERMINATING not in causes:
        return Invalid(message)
    return ClusterError(f"{status}: {message}")


def retry_after(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait before the same request again; None where it does not."""
    asked = headers.get("Retry-After", "")
    if status != 429 and not (status >= 500 and asked):
        return None
    return min(float(asked) if asked.isdigit() else 1.0, BUSY_LONGEST)
