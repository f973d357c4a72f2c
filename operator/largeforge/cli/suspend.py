"""Hold an object, and let it go on: one field of its spec."""

from __future__ import annotations

from largeforge.api.names import API_VERSION
from largeforge.cli.targets import short
from largeforge.kube.cluster import Cluster, Manifest

MANAGER = "kubectl-largeforge"
"""The field manager of that one field."""
FIELD = {"FineTuneJob": "suspend", "QuantizeJob": "suspend", "InferenceService": "stopped"}


async def hold(cluster: Cluster, found: Manifest, *, held: bool) -> str:
    """Write the field that holds *found*; one line about what follows. A second call writes nothing."""
    field, metadata = FIELD[found["kind"]], found["metadata"]
    if bool(found["spec"].get(field)) == held:
        return f"{short(found)}: spec.{field} is {str(held).lower()} already"
    await cluster.apply(
        {
            "apiVersion": API_VERSION,
            "kind": found["kind"],
            # With the uid an object that went in the meantime is a conflict, and is not made anew from one field.
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "spec": {field: held},
        },
        manager=MANAGER,
    )
    return f"{short(found)}: spec.{field} is {str(held).lower()} now"
