"""Questions about files, their Jobs and pods, as tests need them."""

from __future__ import annotations

from largeforge.api.common import SecretRef
from largeforge.api.meta import ObjectMeta
from largeforge.api.uri import parse_pvc
from largeforge.resources.attemptpod import Installation
from largeforge.resources.deliver import Delivery, Removal
from largeforge.resources.errand import CONTAINER, Parent
from largeforge.resources.inspect import Subject

HERE = Installation(
    image="trainer:1",
    pull_policy="IfNotPresent",
    hub_endpoint="https://hub.example",
    hub_hosts=("files.hub.example",),
)
DIGEST = "a" * 64
EXPERT = Parent("Expert", ObjectMeta(name="sql", namespace="team", uid="uid-of-sql"))
SERVICE = Parent("InferenceService", ObjectMeta(name="smol", namespace="team", uid="uid-of-smol"))
QUANTIZEJOB = Parent("QuantizeJob", ObjectMeta(name="small", namespace="team", uid="uid-of-small"))
ADAPTER = Subject("Adapter", "pvc://uploads/sql/v2", "spec.artifact.uri")
MODEL = Subject("Model", "pvc://models/base", "spec.model.uri")
HUB_MODEL = Subject(
    "Model",
    "hf://org/model",
    "spec.model.uri",
    revision="v1",
    secret_ref=SecretRef(name="hub"),
    cache_uri="pvc://cache/hub",
)
DELIVERY = Delivery(parse_pvc("pvc://uploads/sql/v2"), DIGEST, parse_pvc("pvc://models/store"), "spec.artifact.uri")
REMOVAL = Removal(parse_pvc("pvc://models/store").child(DIGEST), DIGEST, "spec.deletionPolicy")
REJECTED = Removal(parse_pvc("pvc://models/small/small-0123456789ab"), DIGEST, "spec.output.uri")


def as_made(manifest, *, uid="uid-of-job", **status):
    """The Job as the API server hands it out."""
    return manifest | {"metadata": manifest["metadata"] | {"uid": uid}, "status": status}


def over(kind, *, at, message=""):
    """A condition of an ended Job."""
    return {"type": kind, "status": "True", "lastTransitionTime": at.isoformat(), "message": message}


def pod(message="", *, code=0, uid="uid-of-job", name="sql-inspect-x-abcde", created="2026-11-25T12:00:00Z", **status):
    """A pod of the Job; with a *message* it has ended."""
    ended = {"state": {"terminated": {"exitCode": code, "message": message}}, "name": CONTAINER}
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": created, "ownerReferences": [reference]},
        "spec": {},
        "status": ({"containerStatuses": [ended]} if message else {}) | status,
    }
