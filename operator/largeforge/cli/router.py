"""The router as a client of it sees it: where it is, with which key, and what it answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from largeforge.api.names import ROUTER_LABEL
from largeforge.cli.forward import ForwardError
from largeforge.cli.session import USER_AGENT, CliError, Session
from largeforge.kube.cluster import SERVICES, Manifest

ADDRESS_VARIABLES = ("LARGEFORGE_ROUTER", "OPENAI_BASE_URL")
KEY_VARIABLES = ("LARGEFORGE_API_KEY", "OPENAI_API_KEY")
"""The first that is set counts."""
ROUTER_LABELS = {"app.kubernetes.io/part-of": "largeforge", "app.kubernetes.io/component": "router"}
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0
"""As long as a router waits for an engine's first byte."""
ERROR_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said of the router."""

    router: str | None
    key_file: Path | None
    ca_file: Path | None
    namespace: str | None
    context: str | None


@dataclass(frozen=True, slots=True)
class Router:
    """A router that is reached; made by `open_router`."""

    http: aiohttp.ClientSession
    url: str
    """Up to and without `/v1`."""
    server_name: str | None
    """The name in its certificate, where it is not that of the address."""
    namespace: str | None = None
    """Where it is, if the cluster was asked."""

    @asynccontextmanager
    async def post(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, 200; all else is a `CliError` with the router's words."""
        try:
            async with self.http.post(self.url + path, json=body, server_hostname=self.server_name) as response:
                if response.status != 200:
                    raise CliError(self._refusal(response.status, await response.content.read(ERROR_BYTES)))
                yield response
        except aiohttp.ClientConnectorCertificateError as exc:
            raise CliError(
                f"the certificate of the router at {self.url} is not trusted: {exc.certificate_error};"
                " name its authority with --ca-file"
            ) from exc
        except aiohttp.ClientConnectorError as exc:
            raise CliError(f"no router at {self.url}: {exc.os_error}; correct --router, or leave it out") from exc
        except TimeoutError as exc:
            raise CliError(f"the router at {self.url} said nothing in {SILENCE_SECONDS:.0f} s; try again") from exc
        except aiohttp.ClientError as exc:
            raise CliError(
                f"the answer of the router at {self.url} broke off: {exc or type(exc).__name__}; ask again"
            ) from exc

    def _refusal(self, status: int, content: bytes) -> str:
        said = words_of(content) or f"HTTP {status}"
        if status == 401:
            return (
                f"the router at {self.url} does not take this key: {said}; set LARGEFORGE_API_KEY to a client's key:"
                f" kubectl -n {self.namespace or 'NAMESPACE'} get secret largeforge-clients -o yaml"
            )
        if status == 404 and not words_of(content):
            return f"{self.url} is no LargeForge router (404); give its address up to /v1 with --router"
        return f"the router answers {status}: {said}"


def words_of(content: bytes) -> str:
    """The message of an error in OpenAI's shape; empty where *content* is none."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return ""


@asynccontextmanager
async def open_router(session: Session, options: Options) -> AsyncIterator[Router]:
    """The router of `--router`, else of the environment, else that of the namespace through a port-forward."""
    headers = {"User-Agent": USER_AGENT, **_authorization(session, options)}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    connector = aiohttp.TCPConnector(ssl=_trust(options.ca_file))
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as http:
        address = options.router or _first(session.environ, ADDRESS_VARIABLES)
        if address:
            yield Router(http, base(address), None)
            return
        async with _forwarded(session, options, http) as router:
            yield router


@asynccontextmanager
async def _forwarded(session: Session, options: Options, http: aiohttp.ClientSession) -> AsyncIterator[Router]:
    """The namespace's router, through the API server."""
    namespace = options.namespace or session.default_namespace(options.context)
    async with session.connect(options.context) as cluster:
        service = router_service(await cluster.list(SERVICES, namespace, labels=ROUTER_LABELS), namespace)
    name = service["metadata"]["name"]
    port = service["spec"]["ports"][0]
    secure = port.get("name") == "https"
    try:
        async with session.forward(namespace, name, port["port"], options.context) as local:
            url = f"{'https' if secure else 'http'}://127.0.0.1:{local}"
            yield Router(http, url, f"{name}.{namespace}.svc" if secure else None, namespace)
    except ForwardError as exc:
        raise CliError(
            f"service {namespace}/{name} cannot be reached through the API server: {exc};"
            " give the router's address with --router"
        ) from exc


def router_service(services: list[Manifest], namespace: str) -> Manifest:
    """The one of *services* that clients use; a `CliError` where there is none or more than one."""
    found = [s for s in services if ROUTER_LABEL not in s["metadata"].get("labels", {})]
    if not found:
        raise CliError(
            f"no router in namespace {namespace!r}; name the namespace of one with -n, or its address with --router"
        )
    if len(found) > 1:
        names = ", ".join(sorted(s["metadata"]["name"] for s in found))
        raise CliError(f"several routers in namespace {namespace!r}: {names}; give the address of one with --router")
    return found[0]


def base(address: str) -> str:
    """*address* up to and without `/v1`; a `CliError` where it is no address."""
    url = address.rstrip("/").removesuffix("/v1")
    if not url.startswith(("http://", "https://")):
        raise CliError(f"--router {address}: begin with http:// or https://, for example http://localhost:8080")
    return url


def _authorization(session: Session, options: Options) -> dict[str, str]:
    if options.key_file is not None:
        try:
            key = options.key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise CliError(f"--key-file {options.key_file}: {exc}; name a file that holds one key") from exc
    else:
        key = _first(session.environ, KEY_VARIABLES)
    if any(not 32 < ord(letter) < 127 for letter in key):
        raise CliError("the key has a character that no header can hold; it is one line of printable ASCII")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:
        raise CliError(f"--ca-file {ca_file}: {exc}; name a file with certificates in PEM") from exc
