from __future__ import annotations

import json
from typing import Any

import pytest

from largeforge.api.expert import Expert
from largeforge.api.inferenceservice import InferenceService
from largeforge.router.endpoints import Pod
from largeforge.router.openai import ApiError
from largeforge.router.resolve import resolve
from largeforge.router.scan import scan
from largeforge.router.table import build


def service(name: str = "smol", *, created: str = "2026-01-01T00:00:00Z", spec: Any = None, **metadata: Any):
    return InferenceService.model_validate(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, **metadata},
            "spec": {"model": {"uri": "pvc://m/x"}, **(spec or {})},
        }
    )


def expert(
    name: str = "sql",
    *,
    created: str = "2026-02-01T00:00:00Z",
    routing: Any = None,
    ready: Any = "True",
    message: str = "",
    pods: Any = ("p1",),
    spec: Any = None,
    **extra: Any,
):
    return Expert.model_validate(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, **extra},
            "spec": {
                "type": "Adapter",
                "sourceRef": {"kind": "FineTuneJob", "name": name},
                "inferenceServiceRef": {"name": "smol"},
                "routing": routing or {},
                **(spec or {}),
            },
            "status": {
                "conditions": [{"type": "Ready", "status": ready, "reason": "Ready", "message": message}],
                "resolved": {"uri": "pvc://m/a", "engineName": f"{name}-newer000"},
                "placement": {
                    "engineName": f"{name}-0123abcd",
                    "desired": 2,
                    "loaded": len(pods),
                    "summary": "",
                    "pods": [{"name": pod, "uid": pod, "loaded": True} for pod in pods]
                    + [{"name": "px", "uid": "px", "loaded": False, "error": "no"}],
                },
            },
        }
    )


def endpoint(uid: str, address: str, *, ready: Any = True):
    return {"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}}


def slice_(
    *endpoints: Any, name: str = "smol", suffix: str = "a", port: int = 8000, kind: str = "IPv4", labels: Any = None
):
    return {
        "metadata": {
            "name": f"{name}-engine-{suffix}",
            "labels": labels
            or {"largeforge.ai/inferenceservice": name, "kubernetes.io/service-name": f"{name}-engine"},
        },
        "addressType": kind,
        "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": port}],
        "endpoints": list(endpoints),
    }


SLICE = slice_(endpoint("p1", "10.0.0.1"), endpoint("p2", "10.0.0.2"), endpoint("px", "10.0.0.9"))


def table(experts: Any = (), services: Any = None, slices: Any = (SLICE,)):
    return build(experts, [service()] if services is None else services, slices, lambda s: f"key-of-{s.metadata.uid}")


def ask(found: Any, model: str = "auto", text: str = "hi", *, client: str = "team"):
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    return resolve(found.of(client), scan(body), retry_after_seconds=5)


def refusal(found: Any, model: str = "auto", text: str = "hi", *, client: str = "team"):
    with pytest.raises(ApiError) as caught:
        ask(found, model, text, client=client)
    return caught.value


def test_an_expert_goes_to_the_ready_pods_that_have_loaded_it_under_its_placements_name():
    route = table([expert(pods=("p1", "gone"))]).routes["sql"]
    assert route.pods == (Pod("10.0.0.1", 8000),)
    assert route.model == b'"sql-0123abcd"'
    assert route.authorization == b"authorization: Bearer key-of-uid-smol\r\n"


def test_a_service_goes_to_all_its_ready_pods():
    found = table(slices=[slice_(endpoint("p1", "10.0.0.1"), endpoint("p2", "10.0.0.2", ready=False))])
    assert found.routes["smol"].pods == (Pod("10.0.0.1", 8000),)
    assert found.routes["smol"].model == b'"smol"'
    assert ask(found, "smol").reason == "base"


def test_a_service_is_reached_by_its_served_names_and_then_not_by_its_own():
    found = table(services=[service(spec={"servedModelNames": ["base", "org/Base-7B"]})])
    assert {name: (route.name, route.model) for name, route in found.routes.items()} == {
        "base": ("base", b'"smol"'),
        "org/Base-7B": ("org/Base-7B", b'"smol"'),
    }


def test_of_a_services_names_those_that_an_older_object_holds_are_not_its_own():
    younger = service("other", created="2026-03-01T00:00:00Z", spec={"servedModelNames": ["smol", "sql", "free"]})
    slices = [SLICE, slice_(endpoint("p3", "10.0.0.3"), name="other")]
    found = table([expert()], [service(), younger], slices)
    assert {name: route.reason for name, route in found.routes.items()} == {
        "smol": "base",
        "sql": "pinned",
        "free": "base",
    }
    assert Pod("10.0.0.3", 8000) not in found.routes["smol"].pods


def test_a_service_without_ready_pods_is_not_listed():
    found = table(slices=[])
    assert found.routes == {}
    assert refusal(found, "smol").status == 404


def test_a_pod_in_two_slices_is_one_pod():
    slices = [
        slice_(endpoint("p1", "fd00::1"), suffix="v6", kind="IPv6"),
        slice_(endpoint("p1", "10.0.0.1"), suffix="v4"),
    ]
    assert table(slices=slices).routes["smol"].pods == (Pod("10.0.0.1", 8000),)


def test_a_slice_of_another_service_is_not_followed():
    labels = {"largeforge.ai/inferenceservice": "smol", "kubernetes.io/service-name": "mine"}
    assert table(slices=[slice_(endpoint("p1", "10.6.6.6"), labels=labels)]).routes == {}


def test_readiness_that_is_not_said_is_readiness():
    unsaid = endpoint("p1", "10.0.0.1")
    del unsaid["conditions"]
    assert table(slices=[slice_(unsaid)]).routes["smol"].pods == (Pod("10.0.0.1", 8000),)


def test_an_expert_that_is_not_ready_says_why_and_when_to_come_back():
    found = table([expert(ready="False", message="adapter is being loaded on 1 pod")])
    error = refusal(found, "sql")
    assert (error.status, error.code, error.headers) == (503, "expert_not_ready", {"retry-after": "5"})
    assert error.message == "expert 'sql' is not ready: adapter is being loaded on 1 pod"
    models = json.loads(found.public.models)
    assert "sql" not in [model["id"] for model in models["data"]]
    assert [each["id"] for each in models["largeforge"]["unready"]] == ["sql"]


def test_a_ready_expert_without_a_ready_pod_is_not_ready():
    found = table([expert(pods=("gone",), routing={"keywords": [{"pattern": "hi"}]})])
    assert "no ready pod of InferenceService 'smol' has it loaded" in refusal(found, "sql").message
    assert refusal(found).status == 404  # and `auto` does not choose it


def test_an_unknown_name_is_said_with_the_remedy():
    error = refusal(table(), "poetry")
    assert error.message == "no ready expert named 'poetry'; see GET /v1/models"
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


def test_an_unknown_name_is_cut_and_cleaned_before_it_is_repeated():
    message = refusal(table(), "a\n\x1b[31m" + "x" * 500).message
    assert message == f"no ready expert named 'a??[31m{'x' * 56}…'; see GET /v1/models"


def test_an_archived_expert_is_no_route_and_nobody_elses_name():
    archived = expert(spec={"stage": "Archived", "routing": {"fallback": True}})
    found = table([archived], [service(), service("sql", created="2026-03-01T00:00:00Z")])
    assert set(found.routes) == {"smol"}
    assert (found.everything.fallback, found.unready) == (None, {})
    assert refusal(found, "sql").status == 404


def test_a_disabled_expert_is_neither_chosen_nor_pinned():
    found = table([expert(routing={"enabled": False, "keywords": [{"pattern": "hi"}], "fallback": True})])
    assert (refusal(found, "sql").status, refusal(found).status) == (404, 404)
    assert "spec.routing.enabled" in refusal(found, "sql").message


def test_an_expert_that_is_being_deleted_is_gone():
    found = table([expert(deletionTimestamp="2026-03-01T00:00:00Z")])
    assert refusal(found, "sql").status == 404


@pytest.mark.parametrize(
    ("expert_created", "reason"), [("2025-01-01T00:00:00Z", "pinned"), ("2026-05-01T00:00:00Z", "base")]
)
def test_of_two_objects_with_one_name_the_older_has_it(expert_created: str, reason: str):
    found = table([expert("smol", created=expert_created)])
    assert ask(found, "smol").reason == reason


def test_a_name_is_held_by_the_older_object_even_while_that_is_not_ready():
    found = table([expert("smol", created="2025-01-01T00:00:00Z", ready="False", message="soon")])
    assert refusal(found, "smol").status == 503


def test_objects_of_one_age_are_ordered_by_kind_and_name():
    assert ask(table([expert("smol", created="2026-01-01T00:00:00Z")]), "smol").reason == "pinned"


def test_the_oldest_ready_fallback_answers():
    fallback = {"fallback": True}
    found = table(
        [
            expert("a", created="2026-04-01T00:00:00Z", routing=fallback),
            expert("b", created="2026-03-01T00:00:00Z", routing=fallback),
            expert("c", created="2026-02-01T00:00:00Z", routing=fallback, ready="False"),
        ]
    )
    decision = ask(found)
    assert (decision.route.name, decision.reason, decision.score) == ("b", "fallback", 0.0)


def test_a_fallback_that_is_not_ready_is_worth_waiting_for():
    error = refusal(table([expert(routing={"fallback": True}, ready="False", message="loading")]))
    assert (error.status, error.code) == (503, "expert_not_ready")
    assert "expert 'sql': loading" in error.message


def test_without_a_fallback_the_error_says_what_to_do():
    error = refusal(table([expert()]))
    assert (error.status, error.code) == (404, "model_not_found")
    assert "spec.routing.fallback" in error.message


def test_keywords_choose_and_equal_scores_go_by_name():
    found = table(
        [
            expert("b", routing={"keywords": [{"pattern": "sql"}]}),
            expert("a", routing={"keywords": [{"pattern": "SQL", "type": "Literal"}]}),
            expert("c", routing={"domains": ["sql"]}),
        ]
    )
    decision = ask(found, text="mysql and sql")
    assert (decision.route.name, decision.reason, round(decision.score, 2)) == ("a", "keyword", 0.67)
    assert decision.headers() == (
        b"x-largeforge-expert: a\r\nx-largeforge-reason: keyword\r\nx-largeforge-score: 0.67\r\n"
    )


def test_models_are_listed_with_auto_first():
    sql = expert("sql", routing={"domains": ["data"]}, spec={"version": "1.2.0"})
    found = json.loads(table([sql, expert("art")]).public.models)
    assert [card["id"] for card in found["data"]] == ["auto", "art", "smol", "sql"]
    card = {"id": "sql", "object": "model", "created": 1769904000, "owned_by": "largeforge"}
    assert found["data"][3] == card | {"largeforge": {"kind": "Expert", "domains": ["data"], "version": "1.2.0"}}
    assert found["data"][2]["largeforge"] == {"kind": "InferenceService"}


def test_an_expert_whose_service_is_missing_says_so():
    found = table([expert()], services=[])
    assert "InferenceService 'smol' does not exist" in refusal(found, "sql").message


def test_the_same_objects_in_another_order_make_the_same_table():
    experts = [expert("a"), expert("b", routing={"fallback": True}), expert("c", ready="False")]
    one, other = table(experts), table(experts[::-1])
    assert one == other
