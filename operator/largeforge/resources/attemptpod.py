"""The Job of an attempt, whoever's it is: one restricted pod that tries once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.common import PodTemplate, PullSecret, SecretRef
from largeforge.api.names import ExitCode
from largeforge.resources.pods import Manifest, overlay_labels, pod_security
from largeforge.resources.proxy import Proxy, proxy_variables

HUB_HOSTS = "LARGEFORGE_HUB_HOSTS"


@dataclass(frozen=True, slots=True)
class Installation:
    """What the chart decides of a run's pods."""

    image: str
    pull_policy: str
    hub_endpoint: str | None = None
    """The hub's address; None for the client's own."""
    hub_hosts: Sequence[str] = ()
    """More hosts that the hub may redirect to."""
    proxy: Proxy | None = None
    """Through which they reach the hub and trackers."""


@dataclass(frozen=True, slots=True)
class AttemptPod:
    """What the pod of an attempt is made of."""

    containers: Sequence[Manifest]
    """The first one's end is the attempt's."""
    volumes: Sequence[Manifest]
    template: PodTemplate
    """The user's overlay: its labels are taken here, the rest where containers and placement are made."""
    account: Manifest
    placement: Manifest
    grace_seconds: int
    sidecars: Sequence[Manifest] = ()
    """Started before the containers, and ended after them."""


def attempt_job(metadata: Manifest, pod: AttemptPod) -> Manifest:
    """The Indexed Job with *metadata*, whose labels its pod has too; it tries once."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {"rules": _failure_rules(pod.containers[0]["name"])},
            "template": {
                "metadata": {"labels": overlay_labels(metadata["labels"], pod.template)},
                "spec": {
                    "restartPolicy": "Never",
                    **pod.account,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": pod.grace_seconds,
                    "securityContext": pod_security(),
                    **({"initContainers": list(pod.sidecars)} if pod.sidecars else {}),
                    "containers": list(pod.containers),
                    "volumes": list(pod.volumes),
                    **pod.placement,
                },
            },
        },
    }


def pod_account(service_account: str | None, pull_secrets: Sequence[PullSecret]) -> Manifest:
    """The pod's service account and the Secrets of its images' registry."""
    secrets = [secret.manifest() for secret in pull_secrets]
    return {
        **({"serviceAccountName": service_account} if service_account is not None else {}),
        **({"imagePullSecrets": secrets} if secrets else {}),
    }


def secret_variable(name: str, secret: SecretRef) -> Manifest:
    """A variable with an entry of a Secret."""
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}


def common_env(installation: Installation) -> list[Manifest]:
    """The variables of every container of ours that runs Python."""
    variables = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108 - an emptyDir of this pod alone
    if installation.hub_endpoint:
        variables["HF_ENDPOINT"] = installation.hub_endpoint
    if installation.hub_hosts:
        variables[HUB_HOSTS] = ",".join(installation.hub_hosts)
    variables |= proxy_variables(installation.proxy)
    return [{"name": name, "value": value} for name, value in variables.items()]


def _failure_rules(container: str) -> list[Manifest]:
    """What ends an attempt with its cause in the Job's own condition, which outlives the pod."""
    codes = [ExitCode.INVALID_CONFIG, ExitCode.INVALID_DATA, ExitCode.STOPPED]
    return [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": container, "operator": "In", "values": codes},
        },
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
