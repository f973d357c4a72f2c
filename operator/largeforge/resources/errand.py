"""A Job that answers one question about files: it is asked by an environment variable, so that one object is all of it.

Its pods do not carry the parent's label: of an InferenceService that label is what its Service sends requests to. Those
of a QuantizeJob do: its next run waits until no pod of it writes any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from largeforge.api.deliver import DeliverConfig
from largeforge.api.inspect import InspectConfig
from largeforge.api.messages import QUESTION
from largeforge.api.meta import ObjectMeta
from largeforge.api.names import API_VERSION, EXPERT_LABEL, INFERENCESERVICE_LABEL, QUANTIZEJOB_LABEL, ExitCode
from largeforge.api.run import TERMINATION_LOG
from largeforge.resources.attemptpod import Installation, common_env
from largeforge.resources.labels import common_labels
from largeforge.resources.names import errand_name
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import ClaimMount, Manifest, claim_volumes, container_security, pod_security

CONTAINER = "errand"
SOURCE_PATH = "/mnt/source"
CACHE_PATH = "/mnt/cache"
TARGET_PATH = "/mnt/target"
BACKOFF_LIMIT = 3
"""Tries of one Job, with the Job controller's own pauses of 10, 20 and 40 s."""
TTL_SECONDS = 3600
"""How long an ended Job stays to be read by people; the answer is in the parent's status by then."""
GRACE_SECONDS = 10
"""It has nothing to save."""
_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
_LIMITS = {"cpu": "2", "memory": "2Gi"}
"""It reads weights of any size a piece at a time, 1.6 GB in a second of one core. A tokenizer's JSON is the most that
it holds: with one of 39 MB it took 316 MB in all."""
REACHING = ("nodeSelector", "tolerations", "affinity")
"""Of a user's overlay, what decides which claims a pod can reach."""
_LABELS = {"Expert": EXPERT_LABEL, "InferenceService": INFERENCESERVICE_LABEL, "QuantizeJob": QUANTIZEJOB_LABEL}


@dataclass(frozen=True, slots=True)
class Parent:
    """The object that asks."""

    kind: Literal["Expert", "InferenceService", "QuantizeJob"]
    metadata: ObjectMeta


@dataclass(frozen=True, slots=True)
class Errand:
    """What is asked, and what that needs."""

    purpose: Literal["inspect", "deliver", "remove"]
    question: InspectConfig | DeliverConfig
    mounts: Sequence[ClaimMount]
    env: Sequence[Manifest] = ()
    placement: Mapping[str, object] = field(default_factory=dict)
    """Fields of the pod's spec that bring it to nodes that reach its claims (`pods.overlay_spec`)."""

    @property
    def module(self) -> str:
        """What runs."""
        return f"largeforge.jobs.{'inspect' if self.purpose == 'inspect' else 'deliver'}"


def errand_job(errand: Errand, parent: Parent, *, installation: Installation) -> Manifest:
    """The Job. Its name follows from the parent's and from what is asked."""
    metadata, question = parent.metadata, errand.question
    labels = common_labels(name=metadata.name, component=errand.purpose)
    own = {_LABELS[parent.kind]: metadata.name}
    volumes, mounts = claim_volumes(errand.mounts)
    asked = {"name": QUESTION, "value": question.model_dump_json(by_alias=True, exclude_defaults=True)}
    container: Manifest = {
        "name": CONTAINER,
        "image": installation.image,
        "imagePullPolicy": installation.pull_policy,
        "command": ["python", "-m", errand.module],
        "env": [asked, *common_env(installation), *errand.env],
        "resources": {"requests": dict(_REQUESTS), "limits": dict(_LIMITS)},
        "securityContext": container_security(),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir of this pod alone
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": errand_name(metadata.name, errand.purpose, question.request),
            "namespace": metadata.namespace,
            "labels": labels | own,
            "ownerReferences": [owner_reference(API_VERSION, parent.kind, metadata)],
        },
        "spec": {
            "backoffLimit": BACKOFF_LIMIT,
            "completions": 1,
            "parallelism": 1,
            # The next pod starts when the one before is over, so that two never write to one folder.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "template": {
                "metadata": {"labels": labels | own if parent.kind == "QuantizeJob" else labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "securityContext": pod_security(),
                    "containers": [container],
                    "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
                    **errand.placement,
                },
            },
        },
    }


def _failure_rules() -> list[Manifest]:
    """What another try cannot cure ends the Job; a pod that the cluster took away does not count."""
    codes = [ExitCode.INVALID_CONFIG, ExitCode.INVALID_DATA]
    return [
        {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": codes}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
