"""Whether a run's pods can reach their claims: what is missing, lost, or held elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from largeforge.api.names import Reason
from largeforge.controllers.podstate import Problem, is_over
from largeforge.kube.cluster import Manifest

ONE_NODE, ONE_POD = "ReadWriteOnce", "ReadWriteOncePod"
MANY = {"ReadWriteMany", "ReadOnlyMany"}
HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that the run needs."""

    name: str
    field: str
    """The field that names it."""
    found: Manifest | None

    @property
    def modes(self) -> set[str]:
        """Its access modes."""
        return set((self.found or {}).get("spec", {}).get("accessModes", []))

    @property
    def phase(self) -> str:
        """Pending, Bound or Lost; empty where the cluster has not looked at it yet."""
        return str((self.found or {}).get("status", {}).get("phase", ""))

    @property
    def is_single(self) -> bool:
        """Whether pods of one node alone, or one pod, can use it."""
        return bool(self.modes & {ONE_NODE, ONE_POD}) and not self.modes & MANY


def absent(claim: Claim, namespace: str) -> Problem | None:
    """What is wrong with *claim* by itself."""
    if claim.found is None:
        return Problem(
            Reason.CLAIM_NOT_FOUND,
            f"{claim.field}: no PersistentVolumeClaim {claim.name!r} in namespace {namespace!r}; create it to start"
            " the run",
        )
    if "deletionTimestamp" in claim.found["metadata"]:
        return Problem(
            Reason.CLAIM_LOST,
            f"{claim.field}: PersistentVolumeClaim {claim.name!r} is being deleted, and no new pod gets it; create it"
            " anew when it is gone, or name another claim",
        )
    if claim.phase == "Lost":
        return Problem(
            Reason.CLAIM_LOST,
            f"{claim.field}: PersistentVolumeClaim {claim.name!r} has lost its volume; restore the volume, or name"
            " another claim",
        )
    return None


def taken(claims: Sequence[Claim], others: Sequence[Manifest], *, node: str | None) -> Problem | None:
    """What keeps a pod on *node* (None: any node) from *claims*, given the *others* that run in the namespace."""
    holders = {claim.name: _holders(claim, others) for claim in claims if claim.is_single}
    for claim in claims:
        held = holders.get(claim.name, {})
        if ONE_POD in claim.modes and held:
            return Problem(
                Reason.READ_WRITE_ONCE_POD_IN_USE,
                f"{claim.field}: PersistentVolumeClaim {claim.name!r} is ReadWriteOncePod, and pod {min(held)!r} uses"
                " it; end that pod, or use a ReadWriteMany claim",
            )
    held_by_nodes = [(claim, holders[claim.name]) for claim in claims if holders.get(claim.name)]
    if node is not None:
        for claim, held in held_by_nodes:
            if node not in held.values():
                return _across(claim, held, f"this run's pod is on node {node!r}")
    for i, (claim, held) in enumerate(held_by_nodes):
        for other, elsewhere in held_by_nodes[:i]:
            if not set(held.values()) & set(elsewhere.values()):
                return _across(claim, held, f"claim {other.name!r} is used on node {min(elsewhere.values())!r}")
    return None


def pinned_node(node_selector: Mapping[str, str]) -> str | None:
    """The node that a pod's selector names."""
    return node_selector.get(HOSTNAME)


def _holders(claim: Claim, pods: Sequence[Manifest]) -> dict[str, str]:
    """The pods that have *claim* on a node, each with the node."""
    found = {}
    for pod in pods:
        node = pod.get("spec", {}).get("nodeName")
        if node and not is_over(pod) and claim.name in _claims(pod):
            found[pod["metadata"]["name"]] = node
    return found


def _claims(pod: Manifest) -> set[Any]:
    volumes = pod.get("spec", {}).get("volumes", [])
    return {v["persistentVolumeClaim"].get("claimName") for v in volumes if "persistentVolumeClaim" in v}


def _across(claim: Claim, held: Mapping[str, str], but: str) -> Problem:
    pod = min(held)
    return Problem(
        Reason.READ_WRITE_ONCE_ACROSS_NODES,
        f"{claim.field}: PersistentVolumeClaim {claim.name!r} is {ONE_NODE}, pod {pod!r} uses it on node {held[pod]!r},"
        f" and {but}; use a ReadWriteMany claim, or bring both to one node by podTemplate.nodeSelector",
    )
