"""The Jobs of a run and what they are told."""

from __future__ import annotations

import json

import pytest

from largeforge.api.finetunejobstatus import ResolvedBase, RunRecord
from largeforge.api.run import RunConfig
from largeforge.resources.attemptpod import Installation
from largeforge.resources.preflight import left_out_claims, mounted_cache, preflight_config_map, preflight_job
from largeforge.resources.progress import ProgressTarget
from largeforge.resources.runconfig import run_config
from largeforge.resources.runstorage import needed_claims
from largeforge.resources.training import run_config_map, training_job
from tests.unit.training import PUBLISH, finetunejob

HERE = Installation(image="trainer:1", pull_policy="Always")
MIRROR = Installation(image="trainer:1", pull_policy="Always", hub_endpoint="https://hub.example", hub_hosts=("a", "b"))
TARGET = ProgressTarget("https://operator/v1/progress", "a certificate")
HUB = {
    "base": {"uri": "hf://org/model", "revision": "v1", "secretRef": {"name": "hub"}},
    "datasets": [{"uri": "hf://org/rows", "secretRef": {"name": "hub", "key": "rows"}}, {"uri": "pvc://data/x.jsonl"}],
    "evalDataset": {"uri": "hf://org/held-out", "split": "test", "secretRef": {"name": "other"}},
    "cache": {"uri": "pvc://cache/hub"},
}


def run_of(job, **fields):
    base = ResolvedBase(uri=job.spec.base.uri or "pvc://models/base")
    return RunRecord.model_validate(
        {"number": 3, "digest": "d" * 64, "base": base.model_dump(), "jobName": "sql-r3-x"} | fields
    )


def training_pod(job, *, installation=HERE, progress=None, **fields):
    run = run_of(job, stage="Training", **fields)
    return training_job(job, run, installation=installation, progress=progress)["spec"]["template"]["spec"]


def preflight_pod(job, *, left_out=(), **fields):
    return preflight_job(job, run_of(job, **fields), installation=HERE, left_out=left_out)["spec"]["template"]["spec"]


def mounts_of(pod):
    return {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}


def env_of(pod):
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in pod["containers"][0]["env"]}


def test_the_config_maps_are_read_back_as_they_were():
    job = finetunejob(training={"learningRate": 2e-4})
    run = run_of(job)
    for made in (run_config_map(job, run), preflight_config_map(job, run)):
        text = made["data"]["config.json"]
        assert RunConfig.model_validate_json(text) == run_config(job, run, cached=False)
        assert json.loads(text)["training"]["learningRate"] == 0.0002
    assert run_config_map(job, run, progress=TARGET)["data"]["progress-ca.crt"] == "a certificate"


def test_files_are_where_the_mounts_are():
    job = finetunejob(
        datasets=[{"uri": "pvc://data/a/b/rows.jsonl"}, {"uri": "pvc://data/x.jsonl"}],
        evalDataset={"uri": "configmap://rows/held.jsonl"},
    )
    config = run_config(job, run_of(job), cached=False)
    assert [d.path for d in config.datasets] == ["/mnt/datasets/0/rows.jsonl", "/mnt/datasets/1/x.jsonl"]
    assert config.eval_dataset.path == "/mnt/datasets/eval/held.jsonl"
    for pod in (training_pod(job), preflight_pod(job)):
        mounts = mounts_of(pod)
        assert mounts["/mnt/datasets/0"]["subPath"] == "a/b"
        assert "subPath" not in mounts["/mnt/datasets/1"]
        assert mounts["/mnt/datasets/eval"]["name"] == "dataset-eval"


def test_every_setting_of_the_spec_is_in_the_configuration():
    job = finetunejob(
        peft={"type": "LoRA", "r": 8, "useRslora": True, "useDora": True, "modulesToSave": ["lm_head"]},
        datasets=[{"uri": "pvc://data/x.csv", "format": "Alpaca", "columns": {"output": "answer"}, "weight": 2}],
        dataPolicy={"mode": "Warn", "maxInvalidRatio": 0.1, "onTooLong": "Drop"},
        evalSplitRatio=0.1,
        training={
            "numTrainEpochs": 2,
            "lrSchedulerType": "linear",
            "warmupRatio": 0.1,
            "weightDecay": 0.01,
            "maxGradNorm": 2,
            "optim": "adafactor",
            "perDeviceTrainBatchSize": 2,
            "gradientAccumulationSteps": 3,
            "packing": True,
            "assistantOnlyLoss": True,
            "gradientCheckpointing": False,
            "attnImplementation": "sdpa",
            "evalSteps": 5,
            "loggingSteps": 2,
            "earlyStopping": {"patience": 3, "threshold": 0.1},
            "precision": "BF16",
        },
        extraArgs={"neftune_noise_alpha": 5},
        compute={"gpusPerNode": 2, "strategy": "FSDP", "fsdp": {"reshardAfterForward": False, "cpuOffload": True}},
        checkpoint={"uri": "pvc://state/x", "everySteps": 10, "keep": 3, "resume": "Never"},
        output={"uri": "pvc://models/out", "merge": True},
        tracking={"reportTo": "WandB", "project": "mine", "secretRef": {"name": "wandb"}},
    )
    config = run_config(job, run_of(job), cached=False)
    assert (config.lora.use_rslora, config.lora.use_dora, config.lora.modules_to_save) == (True, True, ["lm_head"])
    (rows,) = config.datasets
    assert (rows.format, rows.columns, rows.weight) == ("Alpaca", {"output": "answer"}, 2)
    assert (config.data_policy.mode, config.data_policy.on_too_long) == ("Warn", "Drop")
    training = config.training
    assert (training.num_train_epochs, training.max_steps, training.lr_scheduler_type) == (2, None, "linear")
    assert (training.warmup_ratio, training.weight_decay, training.max_grad_norm) == (0.1, 0.01, 2)
    assert (training.optim, training.packing, training.assistant_only_loss) == ("adafactor", True, True)
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (2, 3)
    assert (training.gradient_checkpointing, training.attn_implementation) == (False, "sdpa")
    assert (training.eval_steps, training.logging_steps, training.early_stopping.patience) == (5, 2, 3)
    assert config.extra_args == {"neftune_noise_alpha": 5}
    compute = config.compute
    assert (compute.strategy, compute.processes, compute.use_cpu) == ("FSDP", 2, False)
    assert (compute.reshard_after_forward, compute.cpu_offload) == (False, True)
    saved = config.checkpoint
    assert (saved.path, saved.uri, saved.every_steps) == ("/mnt/checkpoints", "pvc://state/x", 10)
    assert (saved.every_minutes, saved.keep, saved.resume) == (None, 3, False)
    assert config.merge is True
    assert (config.tracking.report_to, config.tracking.project) == ("wandb", "mine")
    key = {"secretKeyRef": {"name": "wandb", "key": "token"}}
    assert env_of(training_pod(job))["WANDB_API_KEY"] == key
    assert "WANDB_API_KEY" not in env_of(preflight_pod(job))


def test_what_is_left_out_has_its_default():
    config = run_config(finetunejob(), run_of(finetunejob()), cached=False)
    assert (config.namespace, config.job, config.checkpoint.path) == ("team", "sql", "/mnt/output")
    assert (config.checkpoint.uri, config.checkpoint.every_minutes) == ("pvc://models/out", 30)
    assert (config.cache_path, config.adapter, config.tracking, config.eval_dataset) == (None, None, None, None)
    tracked = finetunejob(tracking={"reportTo": "TensorBoard"})
    assert run_config(tracked, run_of(tracked), cached=False).tracking.project == "team-sql"


def test_all_weights_are_trained_without_an_adapter():
    job = finetunejob(peft={"type": "None"})
    config = run_config(job, run_of(job), cached=False)
    assert (config.lora, config.training.learning_rate) == (None, 2e-5)


def test_only_outputs_and_scratch_can_be_written():
    job = finetunejob(**HUB, checkpoint={"uri": "pvc://state"})
    scratch = {"/tmp", "/dev/shm"}  # noqa: S108
    written = {path for path, m in mounts_of(training_pod(job, cached=True)).items() if not m.get("readOnly")}
    assert written == {"/mnt/output", "/mnt/checkpoints", *scratch}
    written = {path for path, m in mounts_of(preflight_pod(job)).items() if not m.get("readOnly")}
    assert written == {"/mnt/output", "/mnt/checkpoints", "/mnt/cache", *scratch}


def test_tokens_of_the_hub_come_from_the_users_secrets_by_reference():
    job = finetunejob(**HUB)
    config = run_config(job, run_of(job), cached=True)
    assert (config.base.token_env, config.base.revision) == ("LARGEFORGE_HUB_TOKEN_BASE", "v1")
    assert [d.token_env for d in config.datasets] == ["LARGEFORGE_HUB_TOKEN_0", None]
    for pod in (training_pod(job), preflight_pod(job)):
        env = env_of(pod)
        assert env["LARGEFORGE_HUB_TOKEN_BASE"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
        assert env["LARGEFORGE_HUB_TOKEN_0"] == {"secretKeyRef": {"name": "hub", "key": "rows"}}
        assert env["LARGEFORGE_HUB_TOKEN_EVAL"] == {"secretKeyRef": {"name": "other", "key": "token"}}
        assert "LARGEFORGE_HUB_TOKEN_1" not in env


def test_the_mirror_is_named_to_both_stages():
    job = finetunejob(**HUB)
    env = env_of(training_pod(job, installation=MIRROR))
    assert (env["HF_ENDPOINT"], env["LARGEFORGE_HUB_HOSTS"]) == ("https://hub.example", "a,b")
    assert "HF_ENDPOINT" not in env_of(training_pod(job))


@pytest.mark.parametrize(
    ("spec", "cached", "offline", "cache"),
    [
        ({}, False, "1", None),
        (HUB, True, "1", None),
        ({k: v for k, v in HUB.items() if k != "cache"}, False, "0", None),
        (HUB, False, "0", "/mnt/cache"),
    ],
)
def test_training_asks_the_hub_only_for_what_preflight_could_not_leave_in_the_cache(spec, cached, offline, cache):
    job = finetunejob(**spec)
    pod = training_pod(job, cached=cached)
    assert (env_of(pod)["HF_HUB_OFFLINE"], env_of(pod).get("HF_HUB_CACHE")) == (offline, cache)
    if cache is not None:
        assert "readOnly" not in mounts_of(pod)[cache]
    config = json.loads(run_config_map(job, run_of(job, cached=cached))["data"]["config.json"])
    assert config["cachePath"] == ("/mnt/cache" if cached else None)


def test_preflight_does_without_claims_that_it_would_bind_elsewhere():
    job = finetunejob(**HUB, compute={"gpusPerNode": 1}, output={"uri": "pvc://out"})
    run = run_of(job)
    left_out = left_out_claims(job, run, unbound={"out", "cache", "data"})
    assert left_out == {"out", "cache"}, "rows are read"
    pod = preflight_pod(job, left_out=left_out)
    assert not {"/mnt/output", "/mnt/cache"} & mounts_of(pod).keys()
    config = json.loads(preflight_config_map(job, run, left_out=left_out)["data"]["config.json"])
    assert config["cachePath"] is None
    batch = preflight_job(job, run, installation=HERE, left_out=left_out)
    assert not mounted_cache(batch)
    assert mounted_cache(preflight_job(job, run, installation=HERE))


@pytest.mark.parametrize(
    "compute",
    [
        {"gpusPerNode": 0},
        {"gpusPerNode": 1, "podTemplate": {"nodeSelector": {"gpu": "a100"}}},
        {"gpusPerNode": 1, "podTemplate": {"affinity": {"nodeAffinity": {}}}},
    ],
)
def test_where_the_nodes_are_named_or_no_gpu_is_needed_preflight_binds_what_it_needs(compute):
    job = finetunejob(compute=compute, output={"uri": "pvc://out"})
    assert left_out_claims(job, run_of(job), unbound={"out"}) == frozenset()


def test_preflight_is_placed_as_training_and_holds_no_gpu():
    template = {
        "nodeSelector": {"gpu": "a100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"x": 1}},
        "runtimeClassName": "nvidia",
    }
    job = finetunejob(compute={"gpusPerNode": 8, "podTemplate": template})
    training, preflight = training_pod(job), preflight_pod(job)
    for name in ("nodeSelector", "tolerations", "affinity"):
        assert preflight[name] == training[name]
    assert "runtimeClassName" not in preflight
    resources = preflight["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"cpu": "32", "memory": "128Gi"}}
    assert preflight["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_preflight_never_takes_more_than_the_user_allows():
    job = finetunejob(compute={"gpusPerNode": 0, "resources": {"limits": {"cpu": "500m", "memory": "2Gi"}}})
    resources = preflight_pod(job)["containers"][0]["resources"]
    assert resources == {
        "requests": {"cpu": "500m", "memory": "2Gi"},
        "limits": {"cpu": "500m", "memory": "2Gi"},
    }


@pytest.mark.parametrize("gpus", [0, 2])
def test_the_pods_are_restricted(gpus):
    job = finetunejob(compute={"gpusPerNode": gpus})
    for pod in (training_pod(job, progress=TARGET), preflight_pod(job)):
        security = pod["containers"][0]["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 2000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert pod["automountServiceAccountToken"] is False


def test_the_trainer_has_time_to_save_and_alone_posts_progress():
    job = finetunejob()
    training, preflight = training_pod(job, progress=TARGET), preflight_pod(job)
    assert training["terminationGracePeriodSeconds"] == 120
    assert env_of(training)["LARGEFORGE_PROGRESS_URL"] == TARGET.url
    assert "/var/run/secrets/largeforge" in mounts_of(training)
    assert "/var/run/secrets/largeforge" not in mounts_of(preflight)
    assert "LARGEFORGE_PROGRESS_URL" not in env_of(preflight)


def test_image_account_and_pull_secrets_are_the_users():
    job = finetunejob(image="mine:2", serviceAccountName="trainer", imagePullSecrets=[{"name": "registry"}])
    for pod in (training_pod(job), preflight_pod(job)):
        assert pod["containers"][0]["image"] == "mine:2"
        assert pod["serviceAccountName"] == "trainer"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert "serviceAccountName" not in training_pod(finetunejob())


def test_the_users_volumes_are_mounted_beside_ours_in_both_stages():
    template = {
        "volumes": [
            {"name": "tmp", "mountPath": "/certificates", "configMap": {"name": "ca"}},
            {"name": "extra", "mountPath": "/extra", "persistentVolumeClaim": {"claimName": "extra", "readOnly": True}},
        ]
    }
    job = finetunejob(compute={"gpusPerNode": 1, "podTemplate": template})
    for pod in (training_pod(job), preflight_pod(job)):
        assert {"name": "user-tmp", "configMap": {"name": "ca"}} in pod["volumes"]
        assert {"name": "user-tmp", "mountPath": "/certificates"} in pod["containers"][0]["volumeMounts"]
        assert len({v["name"] for v in pod["volumes"]}) == len(pod["volumes"])
    left_out = left_out_claims(job, run_of(job), unbound={"extra"})
    assert "user-extra" not in str(preflight_pod(job, left_out=left_out))


@pytest.mark.parametrize(("compute", "size"), [({"gpusPerNode": 1}, "8Gi"), ({"gpusPerNode": 0}, "1Gi")])
def test_shared_memory_has_a_default_and_can_be_set(compute, size):
    def sizes(pod):
        return [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "shm"]

    assert sizes(training_pod(finetunejob(compute=compute))) == [size]
    assert sizes(training_pod(finetunejob(compute=compute | {"sharedMemory": "3Gi"}))) == ["3Gi"]


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({}, {"cpu": "1", "memory": "4Gi"}, {"cpu": "1", "memory": "4Gi"}),
        ({"limits": {"memory": "2Gi"}}, {"cpu": "1", "memory": "2Gi"}, {"cpu": "1", "memory": "2Gi"}),
        ({"requests": {"memory": "9Gi"}}, {"cpu": "1", "memory": "9Gi"}, {"cpu": "1", "memory": "9Gi"}),
        (
            {"requests": {"cpu": "500m"}, "limits": {"memory": "8Gi"}},
            {"cpu": "500m", "memory": "8Gi"},
            {"cpu": "1", "memory": "8Gi"},
        ),
    ],
)
def test_requests_and_limits_are_always_there_and_never_cross(given, requests, limits):
    pod = training_pod(finetunejob(compute={"gpusPerNode": 0, "resources": given}))
    assert pod["containers"][0]["resources"] == {"requests": requests, "limits": limits}


def test_gpus_are_requested_by_their_resource():
    job = finetunejob(compute={"gpusPerNode": 4, "gpuResource": "amd.com/gpu"})
    resources = training_pod(job)["containers"][0]["resources"]
    assert resources["limits"]["amd.com/gpu"] == resources["requests"]["amd.com/gpu"] == "4"


def test_each_claim_is_needed_for_the_first_field_that_names_it():
    job = finetunejob(**HUB, checkpoint={"uri": "pvc://state"}, publish=PUBLISH)
    assert needed_claims(job, run_of(job)) == {
        "data": "spec.datasets[1].uri",
        "models": "spec.output.uri",
        "state": "spec.checkpoint.uri",
        "cache": "spec.cache.uri",
    }
