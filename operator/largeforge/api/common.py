"""Parts that several kinds share: compute, placement and references."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from largeforge.api.model import (
    LabelKey,
    LabelValue,
    LargeForgeName,
    Model,
    ObjectName,
    Quantity,
    SecretKey,
    SubdomainName,
    keys_rule,
    rules,
)

ResourceList = Annotated[
    dict[Annotated[str, Field(max_length=128)], Quantity],
    Field(max_length=16),
]


class ResourceRequirements(Model):
    """CPU and memory of the container, as in a pod; GPUs are set by the GPU fields."""

    model_config = rules(keys_rule("requests"), keys_rule("limits"))

    requests: ResourceList = {}
    """What the scheduler reserves, for example `{cpu: "2", memory: 8Gi}`."""
    limits: ResourceList = {}
    """What the container may use at most."""


class Toleration(Model):
    """A taint that the pod tolerates."""

    key: (
        Annotated[
            str,
            Field(
                max_length=316,
                pattern=r"^(([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
            ),
        ]
        | None
    ) = None
    """The taint's key; empty with operator Exists tolerates all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""
    value: LabelValue | None = None
    """The taint's value, for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The effect that is tolerated; none means all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a NoExecute taint is tolerated."""


class SecretKeySelector(Model):
    """An entry of a Secret in the same namespace."""

    name: SubdomainName
    """The Secret's name."""
    key: SecretKey
    """The entry's key."""


class SecretRef(Model):
    """A token in a Secret of the same namespace; the kubelet reads it, the operator never does."""

    name: SubdomainName
    """The Secret's name."""
    key: SecretKey = "token"
    """Its entry."""


class PullSecret(Model):
    """A Secret of the same namespace with the credentials of an image registry."""

    name: SubdomainName
    """The Secret's name."""


class EnvVarSource(Model):
    """Where a variable's value comes from."""

    secret_key_ref: SecretKeySelector
    """An entry of a Secret; the kubelet reads it, the operator never does."""


class EnvVar(Model):
    """A variable of the container's environment."""

    model_config = rules(
        ("has(self.value) != has(self.valueFrom)", "set either value or valueFrom"),
        (
            "!self.name.startsWith('PET_') && !self.name.startsWith('LARGEFORGE_') && !self.name.startsWith('VLLM_')"
            " && !(self.name in ['PYTHONPATH', 'PYTHONSTARTUP', 'LD_PRELOAD', 'LD_LIBRARY_PATH', 'HOME'])",
            "names that begin with PET_, LARGEFORGE_ or VLLM_, and those of the loader, are set by LargeForge;"
            " choose another name",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The variable's name."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its value."""
    value_from: EnvVarSource | None = None
    """Its source, where it must not stand in the object."""


class PersistentVolumeClaimSource(Model):
    """A claim of the same namespace."""

    claim_name: ObjectName
    """The claim's name."""
    read_only: bool = False
    """Whether the volume is mounted read-only."""


class ConfigMapSource(Model):
    """A ConfigMap of the same namespace."""

    name: SubdomainName
    """The ConfigMap's name."""


class Volume(Model):
    """A volume of the pod, and where the container finds it."""

    model_config = rules(
        (
            "[has(self.emptyDir), has(self.persistentVolumeClaim), has(self.configMap), has(self.ephemeral),"
            " has(self.csi)].filter(x, x).size() == 1",
            "a volume needs exactly one of emptyDir, persistentVolumeClaim, configMap, ephemeral and csi",
        ),
        (
            "!['/mnt', '/tmp', '/dev', '/etc/largeforge', '/var/run/secrets'].exists(p, self.mountPath == p"
            " || self.mountPath.startsWith(p + '/')) && self.mountPath.split('/').all(s, s != '..')",
            "mountPath: /mnt, /tmp, /dev, /etc/largeforge and /var/run/secrets are LargeForge's; choose another path",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=48, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """The volume's name."""
    mount_path: Annotated[str, Field(min_length=2, max_length=256, pattern=r"^/[^:]*$")]
    """Where the container finds it."""
    empty_dir: (
        Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None
    ) = None
    """An empty folder on the node, as in a pod."""
    persistent_volume_claim: PersistentVolumeClaimSource | None = None
    """A claim."""
    config_map: ConfigMapSource | None = None
    """A ConfigMap."""
    ephemeral: (
        Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None
    ) = None
    """A claim that lives as long as the pod, as in a pod."""
    csi: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = (
        None
    )
    """An inline volume of a CSI driver, as in a pod."""


class PodTemplate(Model):
    """What is laid over the pod that we make. It cannot loosen the security context."""

    model_config = rules(keys_rule("labels"), keys_rule("nodeSelector"))

    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels of the pod, beside ours."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels that the node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    """Taints that the pod tolerates."""
    affinity: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] = {}
    """Affinity, as in a pod; the API server checks it when the pod is made."""
    runtime_class_name: SubdomainName | None = None
    """The RuntimeClass, for example `nvidia`."""
    priority_class_name: SubdomainName | None = None
    """The PriorityClass."""
    volumes: Annotated[list[Volume], Field(max_length=16)] = []
    """Volumes of the pod, each with the path at which the container finds it."""
    env: Annotated[list[EnvVar], Field(max_length=64)] = []
    """Variables of the container, beside ours."""


class InferenceServiceRef(Model):
    """An InferenceService of the same namespace."""

    name: LargeForgeName
    """Its name."""


class ObjectRef(Model):
    """An object of the same namespace."""

    name: ObjectName
    """Its name."""


class Metric(Model):
    """One measured value; text, because Kubernetes' conventions have no floats."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    """What was measured."""
    value: Annotated[str, Field(max_length=64)]
    """The value, as text."""


class ErrorDetail(Model):
    """Why it failed, for people and programs."""

    reason: Annotated[str, Field(max_length=64)]
    """The cause in one word."""
    message: Annotated[str, Field(max_length=2048)]
    """The cause in words, with the remedy."""
    field: Annotated[str, Field(max_length=256)] | None = None
    """The field of this object to look at."""
