"""Where requests to the hub may go: to its own host, and to what the chart lists.

A mirror is asked for nothing but itself: its redirects to other hosts are refused, unless `LARGEFORGE_HUB_HOSTS` lists
them. The client's own endpoint, which hands large files over to storage of its own, may send us to any public https
host, never to an address or a name of the cluster.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from largeforge.api.names import ExitCode, Reason
from largeforge.jobs.errors import RunError

ENDPOINT = "HF_ENDPOINT"
HOSTS = "LARGEFORGE_HUB_HOSTS"
"""The environment variable with more hosts, separated by commas; `*.example` stands for those below it."""
_PRIVATE_SUFFIXES = (".svc", ".local", ".internal", ".localhost")


class HostRefusedError(RunError):
    """The hub sends us elsewhere."""

    reason = Reason.HUB_FORBIDDEN
    exit_code = ExitCode.INVALID_CONFIG


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that requests may go to."""

    listed: tuple[str, ...]
    """The endpoint's own, and those of `LARGEFORGE_HUB_HOSTS`."""
    any_public: bool

    def allow(self, scheme: str, host: str) -> bool:
        """Whether a request may go to *host*."""
        host = host.lower()
        if any(host == allowed or _below(host, allowed) for allowed in self.listed):
            return True
        return self.any_public and scheme == "https" and _is_public(host)


def hosts(environment: Mapping[str, str]) -> Hosts:
    """The hosts for the endpoint in force."""
    from huggingface_hub import constants

    more = tuple(host.strip().lower() for host in environment.get(HOSTS, "").split(",") if host.strip())
    own = endpoint(environment)
    return Hosts(((urlsplit(own or constants.ENDPOINT).hostname or "").lower(), *more), any_public=own is None)


def endpoint(environment: Mapping[str, str]) -> str | None:
    """The mirror that the chart names (`hub.endpoint`), or None for the client's own."""
    return environment.get(ENDPOINT) or None


def watch(request: Any) -> None:
    """Raise unless *request* may go where it goes; asked before every request, those after a redirect too."""
    if not hosts(os.environ).allow(request.url.scheme, request.url.host):
        raise HostRefusedError(
            f"the hub sends us to {request.url.host[:100]}, which is not allowed; list the host in the chart's"
            " hub.hosts, or correct hub.endpoint"
        )


def _below(host: str, pattern: str) -> bool:
    return pattern.startswith("*.") and host.endswith(pattern[1:])


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." in host and not host.endswith(_PRIVATE_SUFFIXES)
