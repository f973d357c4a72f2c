"""Owner references: who takes an object along when it is deleted."""

from __future__ import annotations

from typing import Any

from largeforge.api.meta import ObjectMeta


def owner_reference(api_version: str, kind: str, metadata: ObjectMeta) -> dict[str, Any]:
    """The reference that makes an object of *kind* the controller of another one in its namespace."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_uid(manifest: dict[str, Any]) -> str | None:
    """The uid of the object's controller, if it has one."""
    references = manifest["metadata"].get("ownerReferences", [])
    return next((r["uid"] for r in references if r.get("controller")), None)
