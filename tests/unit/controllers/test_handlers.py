from __future__ import annotations

import kopf

from largeforge.controllers.fleet import Fleet
from largeforge.controllers.handlers import CHILDREN, CONTROLLERS, Links, register, wakes
from largeforge.controllers.process import kopf_settings
from largeforge.controllers.resync import Seen
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, JOBS, PODS, QUANTIZEJOBS
from tests.unit.training import manifest


def thing(name, *, labels=None, spec=None):
    return {"metadata": {"name": name, "namespace": "team", "labels": labels or {}}, "spec": spec or {}}


def expert(name="x", *, source="sql", service="qwen", labels=None):
    spec = {"inferenceServiceRef": {"name": service}} | (
        {"sourceRef": {"kind": "FineTuneJob", "name": source}} if source else {}
    )
    return thing(name, labels=labels, spec=spec)


def woken(resource, body, links=None, *, gone=False):
    return {(r.plural, key.name) for r, key in wakes(resource, body, links or Links(), gone=gone)}


def test_an_object_wakes_itself():
    assert woken(FINETUNEJOBS, manifest()) == {("finetunejobs", "sql")}


def test_a_child_wakes_its_parent():
    assert woken(JOBS, thing("sql-r1-a1", labels={"largeforge.ai/finetunejob": "sql"})) == {("finetunejobs", "sql")}


def test_an_engines_pod_wakes_the_service_and_its_experts():
    links = Links()
    links.learn(expert("x"), gone=False)
    links.learn(expert("y", service="other"), gone=False)
    assert woken(PODS, thing("p", labels={"largeforge.ai/inferenceservice": "qwen"}), links) == {
        ("inferenceservices", "qwen"),
        ("experts", "x"),
    }


def test_a_job_wakes_the_experts_that_follow_it():
    links = Links()
    links.learn(expert(), gone=False)
    assert woken(FINETUNEJOBS, manifest(), links) == {("finetunejobs", "sql"), ("experts", "x")}


def test_a_quantizejob_wakes_its_own_experts_and_not_those_of_a_finetunejob_of_its_name():
    links = Links()
    links.learn(expert("x"), gone=False)
    follows = expert("y")
    follows["spec"]["sourceRef"]["kind"] = "QuantizeJob"
    links.learn(follows, gone=False)
    assert woken(QUANTIZEJOBS, thing("sql"), links) == {("quantizejobs", "sql"), ("experts", "y")}
    assert woken(JOBS, thing("sql-q1-p-a1", labels={"largeforge.ai/quantizejob": "sql"})) == {("quantizejobs", "sql")}


def test_an_expert_wakes_what_it_names_and_named():
    links = Links()
    assert woken(EXPERTS, expert(), links) == {("experts", "x"), ("finetunejobs", "sql"), ("inferenceservices", "qwen")}
    assert ("inferenceservices", "qwen") in woken(EXPERTS, expert(service="other"), links)
    assert ("inferenceservices", "qwen") not in woken(EXPERTS, expert(service="other"), links)


def test_the_service_that_an_expert_leaves_is_woken_when_routers_are_sent_elsewhere():
    links = Links()
    moving = expert(service="new") | {"status": {"placement": {"service": "old"}}}
    moved = expert(service="new") | {"status": {"placement": {"service": "new"}}}
    assert ("inferenceservices", "old") in woken(EXPERTS, moving, links)
    assert ("inferenceservices", "old") in woken(EXPERTS, moved, links)
    assert ("inferenceservices", "old") not in woken(EXPERTS, moved, links)


def test_an_expert_that_is_gone_wakes_what_it_named_once_more():
    links = Links()
    links.learn(expert(), gone=False)
    assert ("inferenceservices", "qwen") in woken(EXPERTS, expert(), links, gone=True)
    assert woken(INFERENCESERVICES, thing("qwen"), links) == {("inferenceservices", "qwen")}


def test_a_label_names_nobody_in_another_namespace():
    forged = thing("p", labels={"largeforge.ai/finetunejob": "other/sql"})
    assert wakes(PODS, forged, Links(), gone=False) == {(FINETUNEJOBS, Key("team", "other/sql"))}


def test_kopf_writes_nothing():
    registry = kopf.OperatorRegistry()
    register(registry, {}, fleet=Fleet(), seen=Seen())
    watched = registry._watching.get_all_handlers()
    assert {h.id for h in watched} == {r.plural for r in (*CONTROLLERS, *CHILDREN)}
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    settings = kopf_settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.watching.client_timeout > settings.watching.server_timeout


def test_children_are_selected_by_the_server():
    selectors = kopf_settings().watching.label_selectors
    assert {s.plural or s.any_name for s in selectors} == {r.plural for r in CHILDREN}
    assert set(selectors.values()) == {"app.kubernetes.io/managed-by=largeforge"}
