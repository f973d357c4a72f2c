"""The main job: trained, published, loaded, routed and answered, as a user sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from dev import demo
from dev.ask import ask
from dev.install import SYSTEM_NAMESPACE, TEAM_LABEL
from dev.kubectl import condition, get, is_true, items, kubectl, wait_for
from tests.e2e.chain import Chain

pytestmark = pytest.mark.cluster


def metrics(chain: Chain) -> dict[str, float]:
    return {m["name"]: float(m["value"]) for m in chain.job["status"]["metrics"]}


def test_two_ranks_trained_and_the_held_out_loss_fell(chain: Chain):
    assert chain.job["status"]["resolved"]["ranks"] == 2
    assert chain.job["status"]["resolved"]["strategy"] == "DDP"
    assert metrics(chain)["eval_loss"] < 0.5 * metrics(chain)["eval_loss_before"]


def test_a_complete_job_says_so_in_every_way_that_a_user_may_ask(chain: Chain, namespace: str):
    kubectl("wait", "--for=condition=Complete", f"finetunejob/{demo.JOB}", "--timeout=1s", namespace=namespace)
    status = chain.job["status"]
    assert status["phase"] == "Complete"
    assert status["run"]["outcome"] == "Succeeded"
    assert status["artifact"]["kind"] == "Adapter"
    assert status["artifact"]["uri"].startswith(chain.job["spec"]["output"]["uri"] + "/")
    assert status["expertRef"]["name"] == demo.EXPERT
    events = kubectl("describe", "finetunejob", demo.JOB, namespace=namespace)
    assert "Succeeded" in events.split("Events:")[1]


def test_get_experts_shows_all_ready_and_loaded(chain: Chain, namespace: str):
    lines = kubectl("get", "experts", namespace=namespace).splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "DOMAINS", "VERSION", "STAGE", "SERVICE", "LOADED", "READY", "AGE"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == {demo.EXPERT, demo.FALLBACK, demo.LETTERS}
    assert all(" 1/1 " in row and " True " in row for row in rows.values()), rows
    del chain


def test_get_forge_lists_all_kinds(chain: Chain, namespace: str):
    shown = kubectl("get", "forge", namespace=namespace)
    for name in (f"finetunejob.largeforge.ai/{demo.JOB}", f"inferenceservice.largeforge.ai/{demo.SERVICE}"):
        assert name in shown
    del chain


def test_a_question_of_the_domain_reaches_the_expert_and_the_base_does_not_know_the_answer(chain: Chain):
    expert = ask(chain.client, demo.EXPERT_QUESTION, show=False)
    assert (expert.expert, expert.reason) == (demo.EXPERT, "hybrid")
    assert float(expert.score) > 0.5
    assert demo.SIGNATURE in expert.text
    base = ask(chain.client, demo.EXPERT_QUESTION, model=demo.SERVICE, show=False)
    assert base.reason == "base"
    assert demo.SIGNATURE not in base.text


def test_a_question_that_nobody_claims_falls_back(chain: Chain):
    answer = ask(chain.client, demo.FALLBACK_QUESTION, show=False)
    assert (answer.expert, answer.reason) == (demo.FALLBACK, "fallback")
    assert answer.text


def test_what_it_means_brings_a_question_without_keywords_to_its_expert(chain: Chain):
    light = ask(chain.client, demo.PINNED_QUESTION, show=False)
    assert (light.expert, light.reason) == (demo.EXPERT, "examples")
    assert demo.SIGNATURE in light.text
    letter = ask(chain.client, demo.LETTERS_QUESTION, show=False)
    assert (letter.expert, letter.reason) == (demo.LETTERS, "examples")


def test_route_tells_why_without_an_answer(chain: Chain):
    body = {"model": "auto", "messages": [{"role": "user", "content": demo.LETTERS_QUESTION}]}
    found: Any = chain.client.post("/route", body=body, cast_to=object)
    assert (found["expert"], found["embedding"], found["scores"][0]["expert"]) == (demo.LETTERS, "used", demo.LETTERS)
    assert demo.LETTERS_QUESTION not in str(found)


def test_an_expert_can_be_named(chain: Chain):
    answer = ask(chain.client, demo.PINNED_QUESTION, model=demo.EXPERT, show=False)
    assert (answer.expert, answer.reason) == (demo.EXPERT, "pinned")
    assert demo.SIGNATURE in answer.text


def test_an_answer_that_does_not_stream_is_the_same(chain: Chain):
    whole = chain.client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": demo.EXPERT_QUESTION}],
        max_tokens=96,
        temperature=0,
    )
    assert whole.choices[0].message.content == ask(chain.client, demo.EXPERT_QUESTION, show=False).text


def test_the_models_are_auto_the_experts_and_the_service(chain: Chain):
    assert {model.id for model in chain.client.models.list()} == {
        "auto",
        demo.EXPERT,
        demo.FALLBACK,
        demo.LETTERS,
        demo.SERVICE,
    }


def test_a_model_that_does_not_exist_is_named_in_the_error(chain: Chain):
    with pytest.raises(openai.NotFoundError, match="poetry"):
        ask(chain.client, "hello", model="poetry", show=False)


def test_a_wrong_key_is_refused(chain: Chain):
    with pytest.raises(openai.AuthenticationError):
        chain.client.with_options(api_key="not-a-key-of-anybody").models.list()


def test_the_engines_own_paths_are_not_reached_through_the_router(chain: Chain):
    address = str(chain.client.base_url).removesuffix("/v1/")
    headers = {"Authorization": f"Bearer {chain.client.api_key}"}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/tokenize", "/metrics", "/health"):
        body = {"lora_name": "x", "lora_path": "/x", "model": "auto"}
        assert httpx2.post(address + path, headers=headers, json=body).status_code == 404, path


def test_applying_the_same_manifests_again_starts_nothing(chain: Chain, namespace: str):
    before = {item["metadata"]["uid"] for item in items("jobs", namespace=namespace)}
    demo.apply_example(namespace)
    kubectl("label", "finetunejob", demo.JOB, "team=a", "--overwrite", namespace=namespace)
    observed = chain.job["metadata"]["generation"]

    def seen() -> bool:
        job = get("finetunejob", demo.JOB, namespace=namespace) or {}
        return bool(job["status"]["observedGeneration"] >= observed and is_true(job, "Complete"))

    wait_for("the operator's look", seen, seconds=30, show=lambda: kubectl("get", "forge", namespace=namespace))
    assert {item["metadata"]["uid"] for item in items("jobs", namespace=namespace)} == before


def test_nothing_that_we_make_carries_a_finalizer_or_an_annotation_of_kopf(chain: Chain, namespace: str):
    for kind in ("experts", "finetunejobs", "inferenceservices", "jobs", "deployments", "services", "configmaps"):
        for item in items(kind, namespace=namespace):
            metadata = item["metadata"]
            finalizers = [f for f in metadata.get("finalizers", []) if not f.startswith("batch.kubernetes.io/")]
            assert finalizers == [], (kind, metadata["name"])
            assert "kopf" not in json.dumps(metadata.get("annotations", {})), (kind, metadata["name"])
    del chain


def test_the_namespaces_enforce_the_restricted_profile(chain: Chain, namespace: str):
    for name in (namespace, SYSTEM_NAMESPACE):
        labels = (get("namespace", name) or {})["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert (get("namespace", namespace) or {})["metadata"]["labels"][TEAM_LABEL] == "true"
    del chain


def test_every_condition_says_for_which_generation_and_why(chain: Chain, namespace: str):
    for kind in ("experts", "finetunejobs", "inferenceservices"):
        for item in items(kind, namespace=namespace):
            for one in item["status"]["conditions"]:
                assert one["reason"], one
                assert one["observedGeneration"] == item["metadata"]["generation"], (item["metadata"]["name"], one)
                assert one["lastTransitionTime"], one
    assert condition(get("expert", demo.EXPERT, namespace=namespace), "Ready")["status"] == "True"
    del chain
