"""Experts of type External: which hosts may be asked, with whose key, and what a request needs to get there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from largeforge.api.expert import Endpoint, Expert
from largeforge.router import clients
from largeforge.router.endpoints import Pod

_KEY = re.compile(r"[!-~]{1,4096}")
"""What may stand in a header; no blank, no end of a line."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ExternalError(Exception):
    """An Expert's endpoint may not be asked, or cannot be."""


@dataclass(frozen=True, slots=True)
class External:
    """Where an Expert of type External is answered. Equal ones are asked alike, whatever else of the Expert changed."""

    name: str
    """The Expert's."""
    pod: Pod
    prefix: bytes
    """What stands before `/v1` in the path."""
    model: str
    """The model's name there."""
    key: str = field(repr=False)
    """Empty where the endpoint wants none."""
    generation: int = field(default=0, compare=False)
    """The Expert's `metadata.generation`."""

    @property
    def origin(self) -> str:
        """Scheme, host and port as they are written, where the port is not the scheme's own."""
        return f"{'https' if self.pod.tls else 'http'}://{host_of(self.pod)}"

    @property
    def url(self) -> str:
        """The address up to and without `/v1`."""
        return self.origin + self.prefix.decode()


def host_of(pod: Pod) -> str:
    """What `Host` says of *pod*; the port of its scheme is left out, which some servers do not know themselves by."""
    host = f"[{pod.host}]" if ":" in pod.host else pod.host
    if pod.external and pod.port == _DEFAULT_PORTS["https" if pod.tls else "http"]:
        return host
    return f"{host}:{pod.port}"


def _never(external: External) -> None:  # noqa: ARG001 - a router without a cluster asks nobody beforehand
    return None


class Externals:
    """What this router is allowed, and what it has found out."""

    def __init__(
        self,
        hosts: Sequence[str] = (),
        keys: Mapping[str, str] | None = None,
        problem: Callable[[External], str | None] = _never,
    ) -> None:
        self._hosts = tuple(host.lower() for host in hosts)
        self.keys = dict(keys or {})
        """By the Expert's name; replaced when the files change."""
        self.problem = problem
        """Why an endpoint does not answer, or is not known to yet; None where it did when it was last asked."""

    def of(self, expert: Expert, endpoint: Endpoint) -> External:
        """Where *expert* is answered; an `ExternalError` says what is to be changed."""
        name = expert.metadata.name
        url = urlsplit(endpoint.url)
        host = (url.hostname or "").lower()
        if not self._allows(host):
            raise ExternalError(
                f"host '{host}' of spec.endpoint.url is not allowed; add it to the chart's value router.externalHosts,"
                " or name another server"
            )
        key = self.keys.get(name, "")
        if key and not _KEY.fullmatch(key):
            raise ExternalError(
                f"entry '{name}' of the Secret with the keys of External experts is not one word of visible ASCII, so"
                " no header can hold it; write the key alone"
            )
        try:
            port = url.port or _DEFAULT_PORTS[url.scheme]
        except (KeyError, ValueError) as error:
            raise ExternalError(
                f"spec.endpoint.url: write http(s)://<host>[:<port>][/<path>] (got '{endpoint.url}')"
            ) from error
        return External(
            name=name,
            pod=Pod(host, port, external=True, tls=url.scheme == "https"),
            prefix=url.path.rstrip("/").encode(),
            model=endpoint.model or name,
            key=key,
            generation=expert.metadata.generation,
        )

    def _allows(self, host: str) -> bool:
        return any(
            host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed for allowed in self._hosts
        )


def read_keys(directory: Path | None) -> dict[str, str]:
    """The key of each Expert that has a file there."""
    return {} if directory is None else {name: "\n".join(lines) for name, lines in clients.read(directory).items()}


def trust(more: Path | None) -> ssl.SSLContext:
    """Whose certificates are good: the system's authorities, and those of the PEM file *more*; else an `OSError`."""
    context = ssl.create_default_context()
    if more is not None:
        context.load_verify_locations(cafile=more)
    context.set_alpn_protocols(["http/1.1"])
    return context
