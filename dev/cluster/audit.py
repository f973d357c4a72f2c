"""The API server's audit log: what service accounts asked for, and what they were refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.manifests import STORAGE_NAMESPACE

MEGABYTES = 50
"""After so many the log begins anew, and keeps the one before: a cluster that stays up fills no disk."""
CLUSTERS_OWN = ("kube-system", STORAGE_NAMESPACE)
"""The namespaces of the node's own controllers, which ask without a pause and are nobody's concern here."""
ACCOUNTS = "system:serviceaccounts"
REFUSED = (401, 403)
CREATED = 201


def policy() -> dict[str, Any]:
    """No bodies, so no Secret's content; no person's calls, and none of the cluster's own controllers."""
    own = [f"{ACCOUNTS}:{namespace}" for namespace in CLUSTERS_OWN]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": own},
            {"level": "Metadata", "userGroups": [ACCOUNTS]},
            {"level": "None"},
        ],
    }


def audit_flags(policy_file: Path, log: Path) -> dict[str, object]:
    """What makes a kube-apiserver write *log*; every answered call is in it before its answer goes out."""
    return {
        "audit-policy-file": policy_file,
        "audit-log-path": log,
        "audit-log-mode": "blocking",
        "audit-log-maxsize": MEGABYTES,
        "audit-log-maxbackup": 1,
    }


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a service account."""

    account: str
    """`namespace/name`."""
    verb: str
    group: str
    resource: str
    """With its subresource, as rules write it: `experts/status`. Empty where no resource is asked for."""
    path: str
    code: int

    @property
    def refused(self) -> bool:
        """Whether rights were missing."""
        return self.code in REFUSED

    @property
    def used(self) -> frozenset[tuple[str, str, str]]:
        """The group, resource and verb of the rules that this call needed: an apply that makes an object creates it."""
        verbs = {self.verb, "create"} if (self.verb, self.code) == ("patch", CREATED) else {self.verb}
        return frozenset((self.group, self.resource, verb) for verb in verbs) if self.resource else frozenset()


def calls(log: Path) -> Iterator[Call]:
    """What *log* holds so far; a watch that goes on is in it from its beginning."""
    for line in log.read_text().splitlines():
        yield _call(json.loads(line))


def _call(event: Mapping[str, Any]) -> Call:
    about = event.get("objectRef", {})
    parts = [about.get("resource", ""), about.get("subresource", "")]
    return Call(
        account=event["user"]["username"].removeprefix("system:serviceaccount:").replace(":", "/"),
        verb=event["verb"],
        group=about.get("apiGroup", ""),
        resource="/".join(part for part in parts if part),
        path=event["requestURI"],
        code=event.get("responseStatus", {}).get("code", 0),
    )
