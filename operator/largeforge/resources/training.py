"""What a run is made of: its configuration, and the Job of one attempt."""

from __future__ import annotations

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import DEFAULT_TRAIN_EPOCHS, FineTuneJob, RunRecord, TrainingCompute
from largeforge.api.names import API_VERSION, ATTEMPT_LABEL, FINETUNEJOB_LABEL, RUN_LABEL, ExitCode
from largeforge.api.run import (
    CONFIG_DIR,
    CONFIG_FILE,
    TERMINATION_LOG,
    LoraSettings,
    MountedDataset,
    RunConfig,
    TrainingSettings,
)
from largeforge.api.uri import ConfigMapUri, PvcUri, parse, parse_pvc
from largeforge.resources.labels import common_labels
from largeforge.resources.names import run_config_name, training_job_name
from largeforge.resources.owner import owner_reference
from largeforge.resources.pods import (
    ClaimMount,
    Manifest,
    claim_volumes,
    container_security,
    overlay_env,
    overlay_labels,
    overlay_spec,
    pod_security,
    resources,
    scratch_volumes,
)
from largeforge.resources.quantity import quantity

CONTAINER = "trainer"
BASE_PATH = "/mnt/base"
DATASETS_PATH = "/mnt/datasets"
OUTPUT_PATH = "/mnt/output"
GRACE_SECONDS = 60
"""From SIGTERM to SIGKILL: torchrun gives its ranks 30 s (`PET_SHUTDOWN_TIMEOUT`), the launcher has the rest."""


def run_config(job: FineTuneJob, run: RunRecord) -> RunConfig:
    """What the run is told; every value is the effective one."""
    spec, training = job.spec, job.spec.training
    epochs = training.num_train_epochs if training.num_train_epochs is not None else DEFAULT_TRAIN_EPOCHS
    return RunConfig(
        job=job.metadata.name,
        run=run.number,
        digest=run_digest(spec),
        method=spec.method,
        base_uri=spec.base.uri,
        base_path=BASE_PATH,
        datasets=[
            MountedDataset(uri=d.uri, path=f"{_dataset_path(i)}/{_file(parse(d.uri))}", field=f"spec.datasets[{i}].uri")
            for i, d in enumerate(spec.datasets)
        ],
        eval_split_ratio=spec.eval_split_ratio,
        lora=LoraSettings(
            r=spec.peft.rank,
            lora_alpha=spec.peft.alpha,
            lora_dropout=spec.peft.dropout,
            target_modules=spec.peft.modules,
        )
        if spec.peft.type == "LoRA"
        else None,
        training=TrainingSettings(
            max_steps=training.max_steps,
            num_train_epochs=None if training.max_steps is not None else epochs,
            learning_rate=spec.learning_rate,
            per_device_train_batch_size=spec.per_device_train_batch_size,
            gradient_accumulation_steps=spec.gradient_accumulation_steps,
            max_length=training.max_length,
            seed=training.seed,
            precision=training.precision,
        ),
        processes=spec.compute.processes,
        use_cpu=spec.compute.gpus_per_node == 0,
        output_uri=spec.output.uri,
        output_path=OUTPUT_PATH,
    )


def run_config_map(job: FineTuneJob, run: RunRecord) -> Manifest:
    """The ConfigMap that the run's attempts mount."""
    name = job.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": run_config_name(name, run.number),
            "namespace": job.metadata.namespace,
            "labels": _labels(job, run),
            "ownerReferences": [owner_reference(API_VERSION, "FineTuneJob", job.metadata)],
        },
        "data": {CONFIG_FILE: run_config(job, run).model_dump_json(by_alias=True, indent=2) + "\n"},
    }


def training_job(job: FineTuneJob, run: RunRecord, *, image: str, pull_policy: str) -> Manifest:
    """The Indexed Job of the run's newest attempt. It tries once: the next attempt is another Job.

    Nothing of it is suspended: a suspended run has no Job.
    """
    compute = job.spec.compute
    labels = _labels(job, run) | {ATTEMPT_LABEL: str(run.attempt)}
    volumes, mounts = _storage(job, run)
    container: Manifest = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["python", "-m", "largeforge.jobs.launch"],
        "env": overlay_env(_environment(compute), compute.pod_template),
        "resources": _resources(compute),
        # The hook that makes GPUs visible in a container writes into its root.
        "securityContext": container_security(read_only_root=compute.gpus_per_node == 0),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": training_job_name(job.metadata.name, run.number, run.attempt),
            "namespace": job.metadata.namespace,
            "labels": labels,
            "ownerReferences": [owner_reference(API_VERSION, "FineTuneJob", job.metadata)],
        },
        "spec": {
            "backoffLimit": 0,
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "podFailurePolicy": {"rules": _failure_rules()},
            "template": {
                "metadata": {"labels": overlay_labels(labels, compute.pod_template)},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "securityContext": pod_security(),
                    "containers": [container],
                    "volumes": volumes,
                    **overlay_spec(compute.pod_template),
                },
            },
        },
    }


def needed_claims(job: FineTuneJob) -> dict[str, str]:
    """The claims that a run mounts, each with the first field that names it."""
    spec = job.spec
    named = [("spec.base.uri", spec.base.uri), ("spec.output.uri", spec.output.uri)]
    named += [(f"spec.datasets[{i}].uri", d.uri) for i, d in enumerate(spec.datasets)]
    found: dict[str, str] = {}
    for field, text in named:
        uri = parse(text)
        if isinstance(uri, PvcUri):
            found.setdefault(uri.claim, field)
    return found


def needed_config_maps(job: FineTuneJob) -> list[tuple[ConfigMapUri, str]]:
    """The keys of ConfigMaps that a run reads, each with the field that names it."""
    parsed = ((parse(d.uri), f"spec.datasets[{i}].uri") for i, d in enumerate(job.spec.datasets))
    return [(uri, field) for uri, field in parsed if isinstance(uri, ConfigMapUri)]


def _labels(job: FineTuneJob, run: RunRecord) -> dict[str, str]:
    name = job.metadata.name
    return common_labels(name=name, component="trainer") | {FINETUNEJOB_LABEL: name, RUN_LABEL: str(run.number)}


def _failure_rules() -> list[Manifest]:
    """What ends an attempt with its cause in the Job's own condition, which outlives the pod."""
    codes = [ExitCode.INVALID_CONFIG, ExitCode.INVALID_DATA, ExitCode.STOPPED]
    return [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": codes},
        },
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _environment(compute: TrainingCompute) -> list[Manifest]:
    """The settings of torchrun (each option has a PET_ variable), and what a read-only, offline container needs."""
    variables = {
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": str(compute.processes),
        "HOME": "/tmp",  # noqa: S108 - the container's own
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if compute.gpus_per_node == 0:
        cores = quantity(_resources(compute)["requests"]["cpu"])
        variables["OMP_NUM_THREADS"] = str(max(int(cores) // compute.processes, 1))
    return [{"name": name, "value": value} for name, value in variables.items()]


def _resources(compute: TrainingCompute) -> Manifest:
    """The user's, else what a small model needs: a core and 4 GiB for each rank, four times that beside a GPU."""
    ranks = compute.processes
    cores, gibibytes = (4 * ranks, 16 * ranks) if compute.gpus_per_node else (ranks, 4 * ranks)
    return resources(
        compute.resources,
        defaults={"cpu": str(cores), "memory": f"{gibibytes}Gi"},
        gpus=compute.gpus_per_node,
        gpu_resource=compute.gpu_resource,
    )


def _storage(job: FineTuneJob, run: RunRecord) -> tuple[list[Manifest], list[Manifest]]:
    """All volumes and mounts: claims, ConfigMaps, the run's configuration, scratch space."""
    spec = job.spec
    sources = [parse(d.uri) for d in spec.datasets]
    on_claims = [ClaimMount(parse_pvc(spec.base.uri), BASE_PATH)]
    on_claims += [ClaimMount(_folder(u), _dataset_path(i)) for i, u in enumerate(sources) if isinstance(u, PvcUri)]
    on_claims += [ClaimMount(parse_pvc(spec.output.uri), OUTPUT_PATH, read_only=False)]
    volumes, mounts = claim_volumes(on_claims)
    for i, uri in enumerate(sources):
        if isinstance(uri, ConfigMapUri):
            items = [{"key": uri.key, "path": uri.key}]
            volumes.append({"name": f"dataset-{i}", "configMap": {"name": uri.name, "items": items}})
            mounts.append({"name": f"dataset-{i}", "mountPath": _dataset_path(i), "readOnly": True})
    volumes.append({"name": "run", "configMap": {"name": run_config_name(job.metadata.name, run.number)}})
    mounts.append({"name": "run", "mountPath": CONFIG_DIR, "readOnly": True})
    # NCCL, gloo and data loaders share memory; what is used counts against the memory limit.
    scratch, scratch_mounts = scratch_volumes(shared_memory="8Gi" if spec.compute.gpus_per_node else "1Gi")
    return volumes + scratch, mounts + scratch_mounts


def _dataset_path(index: int) -> str:
    return f"{DATASETS_PATH}/{index}"


def _file(uri: PvcUri | ConfigMapUri) -> str:
    return uri.key if isinstance(uri, ConfigMapUri) else uri.path.rpartition("/")[2]


def _folder(uri: PvcUri) -> PvcUri:
    """The folder that holds the file: a `subPath` to a file that is missing would be made, as a folder."""
    return PvcUri(uri.claim, uri.path.rpartition("/")[0])
