"""A `Cluster` in a dict: what was written is there, nothing else happens."""

from __future__ import annotations

import copy
import itertools

from largeforge.api.names import PROGRESS_MANAGER
from largeforge.controllers.plan import PROGRESS_FIELDS
from largeforge.kube.client import written
from largeforge.kube.cluster import ClusterError, Conflict, Invalid
from largeforge.resources.owner import controller_uid


class Killed(BaseException):
    """The operator was killed at this write."""


def merged(old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {k: merged(old.get(k), v) for k, v in new.items()}
    return copy.deepcopy(new)


class FakeCluster:
    def __init__(self, *objects, kill_at=None):
        self.objects = {}
        self.writes = []
        self.kill_at = kill_at
        self.refuse = None
        self.documents = {}
        self.extensions = set()
        """Types whose CRD is there, `scaledobjects` for example."""
        self._numbers = itertools.count(1)
        for manifest in objects:
            self._put(manifest)

    def put(self, manifest):
        """What somebody else writes."""
        return self._put(manifest)

    def drop(self, resource, namespace, name):
        return self.objects.pop((resource.plural, namespace, name))

    def drop_named(self, plural, name):
        """As `drop`, for an object that is the only one of its name."""
        (key,) = [k for k in self.objects if (k[0], k[2]) == (plural, name)]
        return self.objects.pop(key)

    def all(self, resource):
        return [copy.deepcopy(m) for (plural, _, _), m in self.objects.items() if plural == resource.plural]

    async def get(self, resource, namespace, name):
        return copy.deepcopy(self.objects.get((resource.plural, namespace, name)))

    async def list(self, resource, namespace, *, labels=None):
        return [
            m
            for m in self.all(resource)
            if namespace in ("", m["metadata"]["namespace"])
            and (labels or {}).items() <= m["metadata"].get("labels", {}).items()
        ]

    async def apply(self, manifest, *, manager="largeforge", force=True):  # noqa: ARG002 - nobody else writes
        self._write("apply", manifest)
        key = self._key(manifest)
        new = merged(self.objects.get(key, {}), manifest)
        if manifest["kind"] == "Deployment":
            self._manage_replicas(new, manifest, manager)
        return self._put(new) if new != self.objects.get(key) else copy.deepcopy(new)

    async def create_once(self, manifest):
        self._write("create", manifest)
        existing = self.objects.get(self._key(manifest))
        if existing is None:
            return self._put(manifest)
        if controller_uid(existing) != controller_uid(manifest):
            raise Conflict(manifest["metadata"]["name"])
        return None

    async def delete(self, resource, namespace, name, *, uid):
        self._write("delete", {"kind": resource.plural, "metadata": {"name": name}})
        found = self.objects.get((resource.plural, namespace, name))
        if found and found["metadata"]["uid"] == uid:
            del self.objects[resource.plural, namespace, name]
            for key, child in list(self.objects.items()):  # what the garbage collector does
                if controller_uid(child) == uid:
                    del self.objects[key]

    async def patch_status(self, manifest, *, manager="largeforge"):
        self._write("status", manifest)
        found = self.objects.get(self._key(manifest))
        version = manifest["metadata"].get("resourceVersion")
        if found and version not in (None, found["metadata"]["resourceVersion"]):
            raise Conflict("the object has been modified")
        if not found:
            return None
        # The one thing that is known of field managers: two fields belong to another one.
        own = PROGRESS_FIELDS.get(manifest["kind"], frozenset())
        kept = {k: v for k, v in found.get("status", {}).items() if (k in own) != (manager == PROGRESS_MANAGER)}
        status = kept | copy.deepcopy(manifest["status"])
        return self._put(found | {"status": status}) if status != found.get("status") else copy.deepcopy(found)

    async def serves(self, resource):
        return resource.plural in self.extensions

    async def document(self, path):
        if path not in self.documents:
            raise ClusterError(path)
        return self.documents[path]

    def _manage_replicas(self, new, manifest, manager):
        """The one field whose managers are known: dropped by the last of them, it goes back to its default."""
        fields = {m["manager"]: m for m in new["metadata"].get("managedFields", [])}
        had = manager in fields
        fields.pop(manager, None)
        if "replicas" in manifest["spec"]:
            fields[manager] = {
                "manager": manager,
                "operation": "Apply",
                "fieldsV1": {"f:spec": {"f:replicas": {}}},
            }
        elif had and not fields:
            new["spec"]["replicas"] = 1
        new["metadata"]["managedFields"] = list(fields.values())

    def _key(self, manifest):
        return written(manifest).plural, manifest["metadata"]["namespace"], manifest["metadata"]["name"]

    def _put(self, manifest):
        plural = "pods" if manifest["kind"] == "Pod" else None
        plural = plural or ("persistentvolumeclaims" if manifest["kind"] == "PersistentVolumeClaim" else None)
        metadata = manifest["metadata"]
        key = (plural or written(manifest).plural, metadata["namespace"], metadata["name"])
        number = str(next(self._numbers))
        metadata = {"uid": f"uid-{number}", "generation": 1} | metadata | {"resourceVersion": number}
        self.objects[key] = copy.deepcopy(manifest) | {"metadata": copy.deepcopy(metadata)}
        return copy.deepcopy(self.objects[key])

    def _write(self, verb, manifest):
        if self.kill_at is not None and len(self.writes) == self.kill_at:
            raise Killed
        if self.refuse == (verb, manifest["kind"]):
            raise Invalid("spec.template.spec.affinity: unknown field")
        self.writes.append((verb, manifest["kind"], manifest["metadata"]["name"]))
