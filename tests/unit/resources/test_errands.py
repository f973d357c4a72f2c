from __future__ import annotations

import json
from dataclasses import replace

import pytest

from largeforge.api.deliver import DeliverConfig
from largeforge.api.inspect import InspectConfig
from largeforge.api.messages import QUESTION
from largeforge.api.names import INFERENCESERVICE_LABEL
from largeforge.api.uri import parse_pvc
from largeforge.resources.deliver import deliver_job, remove_job
from largeforge.resources.inspect import inspect_config, inspect_job
from tests.unit.errands import ADAPTER, DELIVERY, EXPERT, HERE, HUB_MODEL, MODEL, REMOVAL, SERVICE


def container(job):
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def asked(job):
    return json.loads({each["name"]: each.get("value") for each in container(job)["env"]}[QUESTION])


def mounts(job):
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in job["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    return {
        mount["mountPath"]: (claims[mount["name"]], mount.get("subPath"), mount.get("readOnly", False))
        for mount in container(job)["volumeMounts"]
        if mount["name"] in claims
    }


def test_what_is_asked_is_what_the_pod_reads():
    job = inspect_job(HUB_MODEL, SERVICE, installation=HERE)
    assert InspectConfig.model_validate(asked(job)) == inspect_config(HUB_MODEL)
    assert DeliverConfig.model_validate(asked(deliver_job(DELIVERY, EXPERT, installation=HERE))).target_name == "a" * 64


def test_the_same_question_is_the_same_job_and_another_one_is_another():
    name = inspect_job(MODEL, SERVICE, installation=HERE)["metadata"]["name"]
    again = inspect_job(MODEL, SERVICE, installation=replace(HERE, image="trainer:2"))
    other = inspect_job(replace(MODEL, uri="pvc://models/other"), SERVICE, installation=HERE)
    assert again["metadata"]["name"] == name
    assert other["metadata"]["name"] != name
    assert name.startswith("smol-inspect-")


def test_names_of_the_longest_object_fit():
    longest = replace(EXPERT, metadata=EXPERT.metadata.model_copy(update={"name": "x" * 40}))
    for job in (
        inspect_job(ADAPTER, longest, installation=HERE),
        deliver_job(DELIVERY, longest, installation=HERE),
        remove_job(REMOVAL, longest, installation=HERE),
    ):
        assert len(job["metadata"]["name"]) <= 63


def test_what_is_looked_at_is_mounted_read_only_by_its_own_path():
    assert mounts(inspect_job(ADAPTER, EXPERT, installation=HERE)) == {"/mnt/source": ("uploads", "sql/v2", True)}
    assert mounts(inspect_job(HUB_MODEL, SERVICE, installation=HERE)) == {"/mnt/cache": ("cache", "hub", False)}


def test_a_delivery_can_write_to_the_store_alone_and_a_removal_to_the_folder_above():
    assert mounts(deliver_job(DELIVERY, EXPERT, installation=HERE)) == {
        "/mnt/source": ("uploads", "sql/v2", True),
        "/mnt/target": ("models", "store", False),
    }
    assert mounts(remove_job(REMOVAL, EXPERT, installation=HERE)) == {"/mnt/target": ("models", "store", False)}


def test_a_whole_claim_is_never_removed():
    with pytest.raises(ValueError, match="pvc://models is a whole claim"):
        remove_job(replace(REMOVAL, folder=parse_pvc("pvc://models")), EXPERT, installation=HERE)


def test_the_token_comes_from_the_users_secret_and_stands_in_no_question():
    job = inspect_job(HUB_MODEL, SERVICE, installation=HERE)
    (token,) = [each for each in container(job)["env"] if each["name"] == "LARGEFORGE_HUB_TOKEN_SOURCE"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert asked(job)["source"]["tokenEnv"] == "LARGEFORGE_HUB_TOKEN_SOURCE"


def test_the_pods_of_a_services_errand_are_no_endpoints_of_its_service():
    job = inspect_job(MODEL, SERVICE, installation=HERE)
    assert job["metadata"]["labels"][INFERENCESERVICE_LABEL] == "smol", "the Job wakes its parent"
    assert INFERENCESERVICE_LABEL not in job["spec"]["template"]["metadata"]["labels"]


def test_nothing_in_a_question_is_expanded_by_the_kubelet():
    for job in (inspect_job(HUB_MODEL, SERVICE, installation=HERE), deliver_job(DELIVERY, EXPERT, installation=HERE)):
        assert "$" not in json.dumps(asked(job))
