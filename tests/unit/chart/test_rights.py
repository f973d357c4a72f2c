"""The rights of operator and router are what their code asks of the API server: no rule is unused, none is missing."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dev import chart
from dev.paths import REPO
from largeforge.controllers import progressboard, servicechildren
from largeforge.controllers.handlers import CHILDREN, CONTROLLERS
from largeforge.controllers.settings import from_environment
from largeforge.kube import cluster
from largeforge.kube.client import WRITTEN
from largeforge.kube.cluster import Resource
from largeforge.router import watch as router_watch
from tests.unit.chart.test_chart import objects, of_set, one, pods

pytestmark = pytest.mark.skipif(
    not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` or `make cluster` builds it"
)

SOURCES = REPO / "operator" / "largeforge" / "controllers"
RESOURCES = {name: value for name, value in vars(cluster).items() if isinstance(value, Resource)}
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass"}

CREATED_ONCE = {cluster.JOBS, cluster.SECRETS, cluster.EVENTS}
"""Never applied: an attempt and an event are what they are, and a patch of a Secret answers with it."""
READ_ONLY_SPECS = {*CONTROLLERS} - {cluster.EXPERTS}
"""Our kinds that only users write; of them, `status` is ours."""
INDIRECT = {
    "get": {*servicechildren.KINDS, *progressboard._OWNERS.values(), cluster.CONFIGMAPS},
    "list": {*CONTROLLERS},
    "delete": {*servicechildren.KINDS} - {cluster.DEPLOYMENTS, cluster.SERVICES},
}
"""Where the code has a variable in the place of the resource: children, owners of pods, the resync."""


def named_reads() -> Iterator[tuple[str, Resource]]:
    """Each verb with a resource by name in the controllers: `cluster.get(JOBS, ...)`, `Deletion.of(JOBS, ...)`."""
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            deletes = ast.unparse(node.func) in ("Deletion", "Deletion.of")
            verb = "delete" if deletes else {"get": "get", "_get": "get", "list": "list"}.get(called)
            for argument in node.args[:2]:
                if verb and isinstance(argument, ast.Name) and argument.id in RESOURCES:
                    yield verb, RESOURCES[argument.id]


def asked() -> dict[tuple[str, str], set[str]]:
    """The verbs that the operator uses, by group and resource."""
    found: dict[Resource, set[str]] = defaultdict(set)
    for verb, resource in named_reads():
        found[resource].add(verb)
    for verb, resources in INDIRECT.items():
        for resource in resources:
            found[resource].add(verb)
    for resource in (*CONTROLLERS, *CHILDREN):
        found[resource] |= {"list", "watch"}
    for resource in set(WRITTEN.values()) - READ_ONLY_SPECS:
        found[resource] |= {"create"} if resource in CREATED_ONCE else {"create", "patch"}
    whole = {(group_of(resource), resource.plural): verbs for resource, verbs in found.items()}
    for resource in CONTROLLERS:
        whole[group_of(resource), f"{resource.plural}/status"] = {"patch"}
        # Nothing calls it: an owner reference that blocks the owner's deletion needs it under some admission plugins.
        whole[group_of(resource), f"{resource.plural}/finalizers"] = {"update"}
    return whole


def group_of(resource: Resource) -> str:
    return resource.api_version.rpartition("/")[0]


def allowed(role: Mapping[str, Any]) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found[group, resource] |= set(rule["verbs"])
    return found


def test_the_operator_may_do_what_its_code_asks_for_and_nothing_else() -> None:
    assert allowed(one(of_set("default"), "ClusterRole", "largeforge-operator")) == asked()


def test_the_operator_may_hold_its_own_lease_and_no_other() -> None:
    for name in ("default", "namespaced"):
        found = of_set(name)
        role = one(found, "Role", "largeforge-operator-lease")
        assert role["metadata"]["namespace"] == chart.NAMESPACE
        rules = [(rule.get("resourceNames"), rule["verbs"]) for rule in role["rules"]]
        assert rules == [(None, ["create"]), (["largeforge-operator"], ["get", "update"])]
        assert allowed(role) == {("coordination.k8s.io", "leases"): {"create", "get", "update"}}
        (container,) = dict(pods(found))["Deployment largeforge-operator"]["containers"]
        assert {"name": "LARGEFORGE_LEASE_NAME", "value": "largeforge-operator"} in container["env"]


def test_the_router_may_list_and_watch_what_it_follows_and_nothing_else() -> None:
    role = one(of_set("default"), "Role", "largeforge-router")
    assert allowed(role) == {(group_of(each), each.plural): {"list", "watch"} for each in router_watch._KINDS}


def test_a_namespaced_install_makes_nothing_cluster_wide() -> None:
    found = of_set("namespaced")
    assert {each["kind"] for each in found} & CLUSTER_WIDE == set()
    assert [each for each in found if not each["metadata"].get("namespace")] == []
    served = {"sales", "support"}
    assert {each["metadata"]["namespace"] for each in found} == served | {chart.NAMESPACE}


def test_a_namespaced_operator_has_the_same_rules_in_each_namespace_that_it_serves() -> None:
    rules = one(of_set("default"), "ClusterRole", "largeforge-operator")["rules"]
    roles = [o for o in of_set("namespaced") if (o["kind"], o["metadata"]["name"]) == ("Role", "largeforge-operator")]
    assert {o["metadata"]["namespace"]: o["rules"] for o in roles} == {"sales": rules, "support": rules}
    bindings = [
        o for o in of_set("namespaced") if (o["kind"], o["metadata"]["name"]) == ("RoleBinding", "largeforge-operator")
    ]
    subject = {"kind": "ServiceAccount", "name": "largeforge-operator", "namespace": chart.NAMESPACE}
    assert {o["metadata"]["namespace"]: o["subjects"] for o in bindings} == {"sales": [subject], "support": [subject]}
    assert {o["roleRef"]["kind"] for o in bindings} == {"Role"}


def test_a_namespaced_operator_watches_the_namespaces_in_which_it_has_rights() -> None:
    for arguments, expected in (
        (("--set", "operator.namespaced=true,crds.install=false"), {chart.NAMESPACE}),
        (
            ("--set", "operator.namespaced=true,crds.install=false,operator.namespaces={a,b},router.enabled=false"),
            {"a", "b"},
        ),
        ((), set()),
    ):
        (container,) = dict(pods(objects(*arguments)))["Deployment largeforge-operator"]["containers"]
        names = {each["name"]: each.get("value", "by-the-kubelet") for each in container["env"]}
        written = {name: value for name, value in names.items() if name.startswith("LARGEFORGE_")}
        assert from_environment(written).namespaces == expected


def test_people_get_roles_of_their_own_in_a_namespaced_install() -> None:
    for word in ("view", "edit"):
        whole = one(of_set("default"), "ClusterRole", f"largeforge-{word}")
        assert whole["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{word}"] == "true"
        parts = [o for o in of_set("namespaced") if o["metadata"]["name"] == f"largeforge-{word}"]
        assert [(o["kind"], o["metadata"]["namespace"]) for o in parts] == [("Role", "sales"), ("Role", "support")]
        assert all(o["rules"] == whole["rules"] for o in parts)
        assert not any("aggregate" in label for o in parts for label in o["metadata"]["labels"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("operator.namespaced=true", "set crds.install=false, and let an administrator of the cluster apply crds/"),
        (
            "operator.namespaced=true,crds.install=false,operator.namespaces={a},router.namespaces={b}",
            "add b to operator.namespaces, or set router.namespaces",
        ),
        ("operator.namespaces={a}", "operator.namespaces needs operator.namespaced=true"),
    ],
)
def test_a_scope_that_cannot_work_is_refused_with_a_remedy(settings: str, message: str) -> None:
    done = chart.template("--set", settings)
    assert done.returncode != 0
    assert message in done.stderr
