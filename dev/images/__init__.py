"""
Build the images of `images/`, carry them into the cluster, push them to a registry; docs/images.md explains it.

The references of what was built last are in `references()`, and as JSON in `images.json` of the cache folder.
"""

from __future__ import annotations

from dev.images.builder import build, check_disk, prune, references, release
from dev.images.carry import load, push

__all__ = ["build", "check_disk", "load", "prune", "push", "references", "release"]
