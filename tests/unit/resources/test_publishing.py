from __future__ import annotations

from largeforge.api.expert import ExpertSpec
from largeforge.api.finetunejob import PublishedExpert
from largeforge.resources.publishing import Publishing, is_published_by, missing_of, published_expert
from tests.unit.training import PUBLISH, finetunejob


def published(version="1.0.0", **routing):
    expert = PUBLISH["expert"] | {"version": version} | ({"routing": routing} if routing else {})
    job = finetunejob(publish={"expert": expert})
    return published_expert(job, job.spec.publish.expert)


def stored(desired, *, owner="largeforge-publish", fields=("type", "version"), **spec):
    """*desired* in the cluster; the publisher owns *fields*."""
    managed = {"manager": owner, "operation": "Apply", "fieldsV1": {"f:spec": {f"f:{f}": {} for f in fields}}}
    return desired | {
        "metadata": desired["metadata"] | {"managedFields": [managed]},
        "spec": desired["spec"] | spec,
    }


def test_every_field_of_an_expert_can_be_published_and_defaults_are_left_to_its_editors():
    fields = {
        "version": "1",
        "routing": {"domains": ["sql"]},
        "defaults": {"temperature": 0.0},
        "limits": {"timeoutSeconds": 9},
        "access": {"clients": ["team"]},
        "stage": "Production",
        "probe": {"prompt": "Hello"},
        "deletionPolicy": "Delete",
    }
    told = set(ExpertSpec.model_fields) - {"type", "source_ref", "artifact", "endpoint"}
    assert told == set(PublishedExpert.model_fields) - {"name"}
    job = finetunejob(publish={"expert": PUBLISH["expert"] | fields})
    spec = published_expert(job, job.spec.publish.expert)["spec"]
    assert {key: spec[key] for key in fields} == fields
    plain = finetunejob(publish={"expert": {"name": "sql", "inferenceServiceRef": {"name": "smol"}}})
    assert set(published_expert(plain, plain.spec.publish.expert)["spec"]) == {
        "type",
        "sourceRef",
        "inferenceServiceRef",
    }


def test_another_kind_of_job_publishes_by_its_own_label():
    job = finetunejob(publish=PUBLISH)
    how = Publishing("largeforge.ai/quantizejob", "Model")
    made = published_expert(job, job.spec.publish.expert, how=how)
    assert made["spec"]["type"] == "Model"
    assert is_published_by(made, job, how=how)
    assert not is_published_by(made, job)


def test_what_is_there_need_not_be_applied():
    desired = published(keywords=[{"pattern": "sql"}])
    there = stored(desired, routing={"enabled": True, "keywords": [{"pattern": "sql", "type": "Word"}]})
    assert missing_of(desired, there) is None


def test_our_own_field_follows_the_job():
    assert missing_of(published("2"), stored(published("1")))["spec"]["version"] == "2"


def test_a_field_that_a_person_changed_is_theirs():
    there = stored(published("1"), fields=("type",), version="mine")
    assert missing_of(published("2"), there) is None


def test_what_is_ours_follows_beside_what_is_theirs():
    there = stored(
        published("1"), fields=("type", "inferenceServiceRef"), version="mine", inferenceServiceRef={"name": "x"}
    )
    there["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:inferenceServiceRef"] = {"f:name": {}}
    lacking = missing_of(published("2"), there)
    assert "version" not in lacking["spec"]
    assert lacking["spec"]["inferenceServiceRef"] == {"name": "qwen"}


def test_a_field_that_is_not_there_is_applied():
    desired = published(domains=["databases"])
    there = stored(published())
    assert missing_of(desired, there)["spec"]["routing"] == {"domains": ["databases"]}


def test_a_field_that_the_job_has_no_more_is_taken_back():
    there = stored(published(), routing={"domains": ["databases"]})
    there["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:routing"] = {"f:domains": {}}
    assert "routing" not in missing_of(published(), there)["spec"]
    there["metadata"]["managedFields"][0]["manager"] = "a person"
    assert missing_of(published(), there) is None


def test_all_that_an_expert_takes_can_be_said():
    wish = PUBLISH["expert"] | {
        "defaults": {"temperature": 0.2},
        "limits": {"timeoutSeconds": 60},
        "access": {"clients": ["a"]},
        "routing": {"fallback": True},
    }
    job = finetunejob(publish={"expert": wish})
    spec = published_expert(job, job.spec.publish.expert)["spec"]
    assert {k: spec[k] for k in ("defaults", "limits", "access", "routing")} == {
        k: wish[k] for k in ("defaults", "limits", "access", "routing")
    }


def test_whose_expert_it_is_stands_in_its_label():
    job = finetunejob(publish=PUBLISH)
    expert = published_expert(job, job.spec.publish.expert)
    assert is_published_by(expert, job)
    assert not is_published_by(expert, finetunejob(name="other"))
    assert not is_published_by({"metadata": {}}, job)
