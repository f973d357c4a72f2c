"""The proxy through which pods reach the hub and trackers, as the variables that their libraries read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOCAL = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local")
"""Never asked of a proxy: the pod itself, and Services by their names in the cluster."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What the chart says of it."""

    url: str
    without: Sequence[str] = ()
    """More hosts that are reached without it; `.example` stands for all below."""


def proxy_variables(proxy: Proxy | None) -> dict[str, str]:
    """The variables of a container that downloads; none without a *proxy*."""
    if proxy is None:
        return {}
    return {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": ",".join((*LOCAL, *proxy.without))}
