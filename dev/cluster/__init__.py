"""A Kubernetes cluster on this machine. What is above knows a kubeconfig, an address, and how to load an image.

`LARGEFORGE_CLUSTER` chooses: `local` (the default; processes of ours) or `kind` (needs a Docker engine).
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Protocol, cast

from dev.steps import StepError

CHOICE = "LARGEFORGE_CLUSTER"
KINDS = ("local", "kind")
"""Modules of this package; the first is the default."""


class Cluster(Protocol):
    """What both kinds of cluster can do; each is a module."""

    def up(self) -> None:
        """Make the cluster run and be ready; nothing is done when it is."""

    def stop(self) -> None:
        """End its processes; its state stays for the next `up`."""

    def down(self) -> None:
        """End its processes and remove its state."""

    def renew(self) -> None:
        """End its processes and remove its objects and volumes; images may stay."""

    def status(self) -> dict[str, Any]:
        """What runs; `ready` is a boolean in it."""

    def kubeconfig(self) -> Path:
        """The administrator's; there is one after `up`."""

    def node_address(self) -> str:
        """Where this machine reaches NodePorts."""

    def import_archive(self, tar: Path) -> None:
        """Load the images of an OCI archive."""

    def content_digests(self) -> set[str]:
        """`sha256:…` of the blobs that an archive may leave out."""

    def has_image(self, reference: str) -> bool:
        """Whether a pod that names *reference* would find it."""

    def audit_log(self) -> Path | None:
        """What service accounts asked the API server for; None where it writes none."""


def chosen() -> Cluster:
    """The cluster that the environment asks for."""
    name = os.environ.get(CHOICE, "") or KINDS[0]
    if name not in KINDS:
        raise StepError(f"{CHOICE}={name} is no cluster", remedy=f"set {CHOICE} to {' or '.join(KINDS)}")
    # Imported by name: the choice is made at run time, and the other one's imports are not needed.
    return cast("Cluster", importlib.import_module(f"dev.cluster.{name}"))


def up() -> None:
    """Make the cluster run and be ready; nothing is done when it is."""
    chosen().up()


def stop() -> None:
    """End its processes; its state stays for the next `up`."""
    chosen().stop()


def down() -> None:
    """End its processes and remove its state; nothing is left on the machine but cached programs and images."""
    chosen().down()


def renew() -> None:
    """Make the next `up` begin with no objects and no volumes; images and certificates may stay."""
    chosen().renew()


def status() -> dict[str, Any]:
    """What runs; `ready` is a boolean in it."""
    return chosen().status()


def kubeconfig() -> Path:
    """The administrator's; there is one after `up`."""
    return chosen().kubeconfig()


def node_address() -> str:
    """Where this machine reaches NodePorts."""
    return chosen().node_address()


def import_archive(tar: Path) -> None:
    """Load the images of an OCI archive; blobs that `content_digests` lists may be missing in it."""
    chosen().import_archive(tar)


def content_digests() -> set[str]:
    """`sha256:…` of the blobs that an archive may leave out."""
    return chosen().content_digests()


def has_image(reference: str) -> bool:
    """Whether a pod that names *reference* would find it."""
    return chosen().has_image(reference)


def audit_log() -> Path | None:
    """What service accounts asked the API server for since the last `renew`; None where it writes none."""
    return chosen().audit_log()
