"""What holds for every render of the chart: pods are restricted, rights are least, typing errors are refused."""

import functools
import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import chart
from dev.paths import REPO
from largeforge.api import crds
from largeforge.api.names import ROUTER_LABEL
from largeforge.controllers import settings as operator_settings
from largeforge.controllers.progressserver import PATH
from largeforge.resources.proxy import Proxy
from largeforge.router import settings as router_settings

pytestmark = pytest.mark.skipif(
    not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` or `make cluster` builds it"
)

SETS = chart.value_sets()
HOOK = "helm.sh/hook"
OURS = {"finetunejobs", "quantizejobs", "inferenceservices", "experts"}
VOLUME_TYPES = frozenset(
    ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
)


@functools.cache
def objects(*arguments: str | Path) -> list[dict[str, Any]]:
    done = chart.template(*arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_set(name: str, *arguments: str) -> list[dict[str, Any]]:
    return objects("--values", SETS[name], *arguments)


def one(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (result,) = [o for o in found if o["kind"] == kind and o["metadata"]["name"] == name]
    return result


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in found:
        if "template" in each.get("spec", {}):
            yield f"{each['kind']} {each['metadata']['name']}", each["spec"]["template"]["spec"]


def violations(pod: dict[str, Any]) -> list[str]:
    """What Pod Security *restricted* would refuse in *pod*, and what we ask of ourselves beyond it."""
    found = [f"pod.{field}" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    whole = pod.get("securityContext", {})
    if not whole.get("runAsNonRoot") or whole.get("runAsUser") == 0:
        found.append("pod.securityContext.runAsNonRoot")
    if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("pod.securityContext.seccompProfile")
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']}: {kind}" for kind in volume if kind != "name" and kind not in VOLUME_TYPES]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        checks = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": own.get("capabilities", {}).get("drop") == ["ALL"],
            "capabilities.add": not own.get("capabilities", {}).get("add"),
            "runAsNonRoot": own.get("runAsNonRoot", True) and own.get("runAsUser", 1) != 0,
            "seccompProfile": own.get("seccompProfile", {}).get("type", "RuntimeDefault") == "RuntimeDefault",
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "resources": {"requests", "limits"} <= set(container.get("resources", {})),
        }
        found += [f"container {container['name']}: {name}" for name, holds in checks.items() if not holds]
    return found


def rules(found: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for each in found:
        if each["kind"] in {"Role", "ClusterRole"}:
            for rule in each["rules"]:
                yield each, rule


def test_lint_finds_nothing() -> None:
    for values in SETS.values():
        done = chart.helm("lint", "--strict", chart.CHART, "--values", values)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted(name: str) -> None:
    found = dict(pods(of_set(name)))
    assert "Job largeforge-keys" in found
    assert [(where, broken) for where, pod in found.items() for broken in violations(pod)] == []


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ({"hostNetwork": True}, "pod.hostNetwork"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume host: hostPath"),
        ({"securityContext": {"runAsUser": 0}}, "pod.securityContext.runAsNonRoot"),
        ({"containers": [{"name": "c"}]}, "container c: capabilities.drop"),
    ],
)
def test_the_check_of_pods_sees_what_is_wrong(pod: dict[str, Any], expected: str) -> None:
    assert expected in violations({"containers": []} | pod)


@pytest.mark.parametrize("name", SETS)
def test_no_right_is_wide(name: str) -> None:
    for role, rule in rules(of_set(name)):
        where = (role["metadata"]["name"], rule)
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words, where
        assert not {"escalate", "bind", "impersonate"} & set(words), where
        assert not {"pods/exec", "pods/attach", "pods/portforward", "serviceaccounts"} & set(words), where
        if "secrets" in rule["resources"]:
            assert rule["verbs"] == ["create"], where
            assert rule["resources"] == ["secrets"], where


def test_the_operators_rights_are_those_that_the_documents_give_a_reason_for() -> None:
    table = [line for line in (REPO / "docs" / "rbac.md").read_text().splitlines() if line.startswith("| ")][2:]
    written = [[[word.strip() for word in cell.split(",")] for cell in line.split("|")[1:4]] for line in table]
    expected = [tuple(row) for row in written]
    role = one(of_set("default"), "ClusterRole", "largeforge-operator")
    found = [([g or "core" for g in r["apiGroups"]], r["resources"], r["verbs"]) for r in role["rules"]]
    assert sorted(found) == sorted(expected)


def test_each_variable_is_one_that_its_process_reads() -> None:
    found = dict(pods(of_set("default")))
    for where, known in (
        ("Deployment largeforge-operator", operator_settings.Settings.model_fields),
        ("Deployment largeforge-router", router_settings.Settings.model_fields),
    ):
        (container,) = found[where]["containers"]
        names = {each["name"] for each in container["env"]} - {"HOME"}
        assert names <= {f"LARGEFORGE_{name.upper()}" for name in known}, where


@pytest.mark.parametrize(
    ("settings", "port", "scheme"),
    [
        ("router.replicas=1", 80, "http"),
        ("router.tls.secretName=cert", 443, "https"),
        ("router.tls.secretName=cert,router.service.port=8443", 8443, "https"),
    ],
)
def test_the_routers_port_speaks_tls_where_a_certificate_is_named_and_probes_stay_plain(
    settings: str, port: int, scheme: str
) -> None:
    found = objects("--set", settings)
    (written,) = one(found, "Service", "largeforge-router")["spec"]["ports"]
    assert written == {"name": scheme, "port": port, "targetPort": scheme}
    pod = dict(pods(found))["Deployment largeforge-router"]
    (container,) = pod["containers"]
    assert {"name": scheme, "containerPort": 8080} in container["ports"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each.get("secret", {}).get("secretName") for each in pod["volumes"]}
    environment = {each["name"]: each.get("value") for each in container["env"]}
    tls = scheme == "https"
    assert (mounts.get("tls"), volumes.get("tls")) == (("/etc/largeforge/tls", "cert") if tls else (None, None))
    assert environment.get("LARGEFORGE_TLS_DIR") == mounts.get("tls")
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "health"
    }
    assert "scheme" not in container["readinessProbe"]["httpGet"]


def test_a_role_is_cluster_wide_only_where_the_operator_needs_it() -> None:
    found = of_set("teams")
    assert {role["metadata"]["name"] for role, _ in rules(found) if role["kind"] == "ClusterRole"} == {
        "largeforge-operator",
        "largeforge-view",
        "largeforge-edit",
    }


def test_the_router_reads_what_it_routes_by_and_writes_nothing() -> None:
    found = of_set("teams")
    for role, rule in rules([o for o in found if o["metadata"]["name"] == "largeforge-router"]):
        assert role["kind"] == "Role"
        assert rule["verbs"] == ["list", "watch"]
        assert set(rule["resources"]) <= {"experts", "inferenceservices", "endpointslices"}


def test_the_roles_of_people_give_no_more_than_our_kinds() -> None:
    found = of_set("default")
    for name in ("largeforge-view", "largeforge-edit"):
        rule, *more = one(found, "ClusterRole", name)["rules"]
        assert (rule["apiGroups"], set(rule["resources"])) == (["largeforge.ai"], OURS)
        scale = {"apiGroups": ["largeforge.ai"], "resources": ["inferenceservices/scale"]}
        assert more == ([scale | {"verbs": ["get", "update", "patch"]}] if name == "largeforge-edit" else [])


def test_the_hook_may_create_secrets_where_keys_are_wanted_and_nothing_else() -> None:
    hooks = [o for o in of_set("teams") if HOOK in o["metadata"].get("annotations", {})]
    roles = {o["metadata"]["namespace"]: o["rules"] for o in hooks if o["kind"] == "Role"}
    only = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}]
    assert roles == {chart.NAMESPACE: only, "sales": only, "support": only}
    subjects = [o["subjects"] for o in hooks if o["kind"] == "RoleBinding"]
    assert subjects == [[{"kind": "ServiceAccount", "name": "largeforge-keys", "namespace": chart.NAMESPACE}]] * 3


def test_the_hooks_account_is_there_before_its_job_and_goes_with_it() -> None:
    hooks = [o for o in of_set("teams") if HOOK in o["metadata"].get("annotations", {})]
    for each in hooks:
        notes = each["metadata"]["annotations"]
        assert notes[HOOK] == "pre-install,pre-upgrade"
        assert notes["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert (int(notes["helm.sh/hook-weight"]) < 0) == (each["kind"] != "Job")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default", ["--router-namespace", chart.NAMESPACE, "--make-clients"]),
        ("teams", ["--router-namespace", "sales", "--router-namespace", "support"]),
        ("open", ["--router-namespace", chart.NAMESPACE]),
        ("operator-only", []),
    ],
)
def test_the_hook_makes_the_keys_that_are_wanted(name: str, expected: list[str]) -> None:
    job = one(of_set(name), "Job", "largeforge-keys")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    head, tail = ["--operator-namespace", chart.NAMESPACE], ["--master-key-file", "/etc/largeforge/master/key"]
    assert container["args"] == [*head, *expected, *tail]


def test_each_namespace_has_a_router_of_its_own() -> None:
    found = of_set("teams")
    for kind in ("ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "PodDisruptionBudget"):
        named = [o for o in found if (o["kind"], o["metadata"]["name"]) == (kind, "largeforge-router")]
        assert [o["metadata"]["namespace"] for o in named] == ["sales", "support"], kind


def test_without_external_hosts_a_router_has_nothing_of_them() -> None:
    pod = dict(pods(of_set("default")))["Deployment largeforge-router"]
    assert "external" not in json.dumps(pod).lower()


def test_keys_of_external_experts_are_files_of_the_router_alone() -> None:
    found = dict(pods(of_set("teams")))
    holders = {where for where, pod in found.items() if "keys-of-external-experts" in json.dumps(pod)}
    assert holders == {"Deployment largeforge-router"}
    env = {each["name"]: each.get("value") for each in found["Deployment largeforge-router"]["containers"][0]["env"]}
    assert env["LARGEFORGE_EXTERNAL_HOSTS"] == "llm.example,*.models.example"
    mounts = {each["mountPath"] for each in found["Deployment largeforge-router"]["containers"][0]["volumeMounts"]}
    assert env["LARGEFORGE_EXTERNAL_KEYS_DIR"] in mounts
    assert str(Path(env["LARGEFORGE_EXTERNAL_CA_FILE"]).parent) in mounts


def test_the_operator_finds_the_report_of_each_namespaces_router_by_its_label() -> None:
    found = [o for o in of_set("teams") if ROUTER_LABEL in o["metadata"].get("labels", {})]
    assert [(o["kind"], o["metadata"]["namespace"]) for o in found] == [("Service", "sales"), ("Service", "support")]
    pod = dict(pods(of_set("teams")))["Deployment largeforge-router"]
    (port,) = found[0]["spec"]["ports"]
    assert port["targetPort"] in {each["name"] for each in pod["containers"][0]["ports"]}
    assert found[0]["spec"]["selector"] == one(of_set("default"), "Service", "largeforge-router")["spec"]["selector"]


def test_without_routers_nothing_of_them_is_made() -> None:
    for made in of_set("operator-only"):
        assert made["metadata"]["labels"].get("app.kubernetes.io/component") != "router"
        assert "router" not in made["metadata"]["name"]


def test_the_master_key_is_mounted_by_the_operator_and_the_hook_alone() -> None:
    holders = {where for where, pod in pods(of_set("teams")) if "largeforge-master-key" in json.dumps(pod["volumes"])}
    assert holders == {"Deployment largeforge-operator", "Job largeforge-keys"}


def test_trainers_reach_the_operator_under_the_name_that_its_certificate_is_for() -> None:
    found = of_set("default")
    (container,) = dict(pods(found))["Deployment largeforge-operator"]["containers"]
    (url,) = [each["value"] for each in container["env"] if each["name"] == "LARGEFORGE_PROGRESS_URL"]
    service = one(found, "Service", "largeforge-progress")
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    assert url == f"https://{name}.{namespace}.svc{PATH}"
    (port,) = service["spec"]["ports"]
    listens = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert (port["port"], listens[port["targetPort"]]) == (
        443,
        operator_settings.Settings.model_fields["progress_port"].default,
    )
    labels = one(found, "Deployment", "largeforge-operator")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_what_runs_may_ask_for_is_handed_to_the_operator_and_nothing_by_itself() -> None:
    words = (
        "LARGEFORGE_HUB_",
        "LARGEFORGE_PROXY_",
        "LARGEFORGE_NO_PROXY",
        "LARGEFORGE_REMOTE_CODE_",
        "LARGEFORGE_SERVICE_ACCOUNTS",
    )
    written = {}
    for name in ("default", "teams"):
        (container,) = dict(pods(of_set(name)))["Deployment largeforge-operator"]["containers"]
        written[name] = {e["name"]: e["value"] for e in container["env"] if e["name"].startswith(words)}
    assert written["default"] == {}
    images = ("TRAINER", "ENGINE", "ENGINE_CPU", "QUANTIZER", "QUANTIZER_AUTOAWQ")
    needed = {f"LARGEFORGE_{image}_IMAGE": "x" for image in images}
    read = operator_settings.from_environment(needed | written["teams"])
    assert read.hub_endpoint == "https://hub.example"
    assert read.hub_hosts == {"files.example", "*.cdn.example"}
    assert read.proxy == Proxy("http://proxy.example:3128", [".corp.example"])
    assert (read.remote_code_namespaces, read.service_accounts) == ({"sales"}, {"trainer"})


def test_selectors_hold_only_labels_that_never_change() -> None:
    before, after = of_set("default"), of_set("default", "--set", "operator.image.tag=other,router.image.tag=other")
    for found in (before, after):
        for each in found:
            if each["kind"] == "Deployment":
                chosen = each["spec"]["selector"]["matchLabels"]
                assert chosen == each["spec"]["template"]["metadata"]["labels"]
                assert set(chosen) == {f"app.kubernetes.io/{word}" for word in ("name", "instance", "component")}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "largeforge-operator:{version}"),
        ({"imageRegistry": "registry.example/team"}, "registry.example/team/largeforge-operator:{version}"),
        ({"operator.image.tag": "v9"}, "largeforge-operator:v9"),
        ({"operator.image.digest": "sha256:" + "0" * 64}, "largeforge-operator:{version}@sha256:" + "0" * 64),
    ],
)
def test_an_image_is_registry_repository_tag_and_digest(values: dict[str, str], expected: str) -> None:
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    pod = dict(pods(objects(*settings)))["Deployment largeforge-operator"]
    assert pod["containers"][0]["image"] == expected.format(version=_project()["version"])


def test_upstreams_engine_is_not_looked_for_in_our_registry() -> None:
    pod = dict(pods(objects("--set", "imageRegistry=registry.example")))["Deployment largeforge-operator"]
    env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert env["LARGEFORGE_ENGINE_IMAGE"] == "vllm/vllm-openai:v0.32.0"
    assert env["LARGEFORGE_TRAINER_IMAGE"].startswith("registry.example/largeforge-trainer:")


def test_the_crds_are_those_of_the_models_and_stay_on_uninstall() -> None:
    expected = {f"{kind.plural}.largeforge.ai": crds.crd(kind)["spec"] for kind in crds.KINDS}
    found = {o["metadata"]["name"]: o for o in objects() if o["kind"] == "CustomResourceDefinition"}
    assert {name: each["spec"] for name, each in found.items()} == expected
    assert {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in found.values()} == {"keep"}


def test_the_crds_go_with_the_release_where_keep_is_false() -> None:
    found = [o for o in objects("--set", "crds.keep=false") if o["kind"] == "CustomResourceDefinition"]
    assert len(found) == len(crds.KINDS)
    assert not [o for o in found if "annotations" in o["metadata"]]


def test_the_charts_copy_of_the_crds_is_current() -> None:
    on_disk = {path.name: path.read_text() for path in (chart.CHART / "files" / "crds").iterdir()}
    assert on_disk == crds.render(), "run: make generate"


@pytest.mark.parametrize(
    "setting",
    [
        "opertor.image.tag=v1",
        "operator.images.tag=v1",
        "operator.image.name=x",
        "operator.resources.limit.cpu=1",
        "router.replica=2",
        "router.replicas=two",
        "router.namespaces={a,a}",
        "router.namespaces={A_b}",
        "router.service.ports=80",
        "router.tls.secret=x",
        "router.tls.secretName=A_b",
        "router.limits.maxConnections=0",
        "router.limits.maxRequestsPerClient=many",
        "router.limits.queueLength=-1",
        "router.limits.queueSeconds=0",
        "router.externalHosts={https://llm.example}",
        "router.externalHosts={*}",
        "router.externalKeysSecret=A_b",
        "router.externalCaConfigMap=A_b",
        "images.trainer.digest=sha256:abc",
        "images.engine.tag=",
        "imagePullPolicy=Sometimes",
        "hub.url=x",
        "hub.endpoint=hub.example",
        "hub.endpoint=https://me:secret@hub.example",
        "hub.hosts={a/b}",
        "hub.proxy.url=proxy.example:3128",
        "hub.proxy.url=http://me:secret@proxy.example:3128",
        "hub.proxy.noProxy={a b}",
        "training.remoteCodeNamespaces={*}",
        "training.serviceAccounts={A b}",
        "imageRegistry=https://registry.example",
        "crds.installed=true",
    ],
)
def test_a_typing_error_in_a_value_is_refused(setting: str) -> None:
    done = chart.template("--set", setting)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("router.service.nodePort=30080", "nodePort needs router.service.type NodePort or LoadBalancer"),
        (
            "router.service.nodePort=30080,router.service.type=NodePort,router.namespaces={a,b}",
            "nodePort is one port, and router.namespaces names several routers",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_remedy(settings: str, message: str) -> None:
    done = chart.template("--set", settings)
    assert done.returncode != 0
    assert message in done.stderr


def test_every_value_has_a_comment_above_it() -> None:
    lines = (chart.CHART / "values.yaml").read_text().splitlines()
    sections = ("requests", "limits")  # parts of `resources`, which has the comment
    leaves = [
        (above, line)
        for above, line in itertools.pairwise(lines)
        if (key := re.match(r" *(\w+): \S", line)) and key[1] not in sections
    ]
    assert len(leaves) > 20
    assert [line for above, line in leaves if not above.lstrip().startswith("# ")] == []


def test_every_default_passes_the_schema_and_the_schema_knows_every_default() -> None:
    schema = json.loads((chart.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - set(values) == {"global"}
    assert set(schema["properties"]["router"]["properties"]) == set(values["router"])
    assert set(schema["properties"]["operator"]["properties"]) == set(values["operator"])


def test_the_notes_name_what_was_installed() -> None:
    notes = _notes("--values", SETS["teams"])
    assert "kubectl -n sales port-forward service/largeforge-router 8080:443" in notes
    assert "curl --insecure https://localhost:8080/v1/models" in notes
    assert "get secret clients-of-the-team" in notes
    assert "delete secret largeforge-namespace-key --ignore-not-found" in notes
    assert "port-forward" not in _notes("--values", SETS["operator-only"])
    assert "kubectl get forge --all-namespaces" in _notes("--values", SETS["operator-only"])
    assert "for sales, support, with a router in sales." in _notes("--values", SETS["namespaced"])
    alone = _notes("--values", SETS["namespaced"], "--set", "router.enabled=false")
    assert "kubectl get forge -n sales\n" in alone
    assert "--all-namespaces" not in alone
    assert "Bearer" not in _notes("--values", SETS["open"])
    assert "8080:80 " in _notes("--values", SETS["open"])
    assert "curl http://localhost:8080/v1/models" in _notes("--values", SETS["open"])


def test_the_charts_version_is_the_projects() -> None:
    version = _project()["version"]
    written = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert written["appVersion"] == version
    assert written["version"] == re.sub(r"\.dev(\d+)$", r"-dev\1", version)


def _notes(*arguments: str | Path) -> str:
    done: subprocess.CompletedProcess[str] = chart.helm(
        "install", chart.RELEASE, chart.CHART, "--namespace", chart.NAMESPACE, "--dry-run=client", *arguments
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    return project
