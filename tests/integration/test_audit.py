"""Rights against the audit log of a real API server: nothing that is asked for is refused, none is spare.

An API server of this module's own grants exactly what the chart grants. The whole life of all four kinds is played
there, with the operator's and the router's own credentials; then its audit log tells what was asked and what was used.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dev import chart
from dev.cluster.apiserver import api_server, audit_log
from dev.cluster.audit import calls
from largeforge.controllers.handlers import CHILDREN, CONTROLLERS
from largeforge.kube.client import ApiCluster
from largeforge.kube.cluster import FINETUNEJOBS
from largeforge.kube.transport import open_transport
from largeforge.router.watch import TableWatch
from tests.integration import operators, test_expert, test_finetunejob, test_inferenceservice, test_progress
from tests.integration import test_quantizejob as quantizing
from tests.integration.conftest import REPO, Server
from tests.integration.played import play
from tests.integration.test_chart import apply

pytestmark = pytest.mark.integration

PLAYED = {each.NAMESPACE for each in (test_finetunejob, quantizing, test_inferenceservice, test_expert, test_progress)}
ROUTED = test_expert.NAMESPACE
OPERATOR, ROUTER = "largeforge-operator", "largeforge-router"
EVERYWHERE, SOME = "cluster-wide", "namespaced"
SETTINGS = {
    EVERYWHERE: f"router.namespaces={{{ROUTED}}}",
    SOME: f"operator.namespaced=true,operator.namespaces={{{','.join(sorted(PLAYED))}}},router.namespaces={{{ROUTED}}}",
}
GRANTS = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


@dataclass(frozen=True)
class Installed:
    """An API server with the rights of one mode, and the credentials that have them."""

    server: Server
    mode: str
    operator: Path
    router: Path
    roles: list[dict]
    folder: Path

    def granted(self, name: str) -> set[tuple[str, str, str]]:
        """The group, resource and verb of each rule of the account *name*."""
        bound = {
            each["roleRef"]["name"] for each in self.roles if any(s["name"] == name for s in each.get("subjects", ()))
        }
        rules = [rule for role in self.roles if role["metadata"]["name"] in bound for rule in role.get("rules", ())]
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def asked(self, name: str):
        """The calls that the account *name* has made so far."""
        return [call for call in calls(audit_log(self.server.kubeconfig)) if call.account.endswith(f"/{name}")]

    def used(self, name: str) -> set[tuple[str, str, str]]:
        """What these calls needed."""
        return {right for call in self.asked(name) for right in call.used}


@pytest.fixture(scope="module", params=[EVERYWHERE, SOME])
def installed(request, tmp_path_factory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("audit")
    done = chart.template("--set", f"crds.install=false,{SETTINGS[request.param]}")
    assert done.returncode == 0, done.stderr
    roles = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] in GRANTS]
    with api_server() as kubeconfig:
        server = Server(kubeconfig)
        named = [{"name": name} for name in sorted(PLAYED | {chart.NAMESPACE})]
        apply(server, [{"apiVersion": "v1", "kind": "Namespace", "metadata": each} for each in named])
        crds = [yaml.safe_load(path.read_text()) for path in sorted((REPO / "crds").glob("*.yaml"))]
        apply(server, [*crds, test_inferenceservice.KEDA])
        done = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert done.returncode == 0, done.stderr
        accounts = [("default", name) for name in PLAYED]
        accounts += [(OPERATOR, chart.NAMESPACE), (ROUTER, ROUTED), ("trainer", test_progress.NAMESPACE)]
        apply(server, [operators.account(*each) for each in accounts] + roles)
        yield Installed(
            server,
            request.param,
            operators.credentials(server, OPERATOR, chart.NAMESPACE, folder),
            operators.credentials(server, ROUTER, ROUTED, folder),
            roles,
            folder,
        )


@asynccontextmanager
async def transport(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with open_transport(user_agent="largeforge-test") as made:
        yield made


def expert(name):
    return {"expert": {"name": name, "inferenceServiceRef": {"name": "qwen"}}}


async def live_finetunejob(installed, monkeypatch, operator):
    """From preflight to an Expert, with a suspension, and on to the end of its children's time."""
    kind = {"publish": expert("whole"), "ttlSecondsAfterFinished": 60}
    base = {"uri": "hf://org/model"}
    at = (installed.server.kubeconfig, monkeypatch, test_finetunejob.NAMESPACE, "whole")
    async with play(*at, operator=operator, base=base, **kind) as job:
        await job.to_training()
        await job.pod()
        await job.apply(suspend=True, base=base, **kind)
        await job.settle()
        await job.apply(suspend=False, base=base, **kind)
        await job.settle()
        await job.succeed()
        await job.settle()
        job.wait(120)
        await job.settle()
        assert await job.children() == ([], [], ["whole"])


async def live_quantizejob(installed, monkeypatch, operator):
    """Through its methods to an Expert."""
    at = (installed.server.kubeconfig, monkeypatch, quantizing.NAMESPACE, "whole")
    async with play(*at, operator=operator, kind=quantizing.Quantizing, publish=expert("whole")) as job:
        await job.go_to("Evaluate", 1)
        await job.succeed(20.2)
        assert (await job.status()).phase == "Complete"


async def live_inferenceservice(installed, monkeypatch, operator):
    """With all that may stand around it, and without; scaled by KEDA, and by Kubernetes where KEDA is not there."""
    async with transport(installed.server.kubeconfig, monkeypatch) as admin:
        service = test_inferenceservice.Served(admin, "whole", operator=operator)
        scaled = {"maxReplicas": 5, "metric": "CPU"}
        for spec in (
            {"replicas": 2, "engine": {"chatTemplate": "configmap://templates/chat.jinja"}},
            {"replicas": 2, "networkPolicy": {"enabled": False}},
            {"autoscaling": scaled},
            {"autoscaling": scaled | {"maxReplicas": 6}},
            {"replicas": 1},
        ):
            await service.apply(**spec)
            await service.settle()
        done = installed.server.kubectl("delete", "crd", "scaledobjects.keda.sh", "--timeout=30s")
        assert done.returncode == 0, done.stderr
        for spec in ({"autoscaling": {"maxReplicas": 5}}, {"replicas": 1}):
            await service.apply(**spec)
            await service.settle()


async def live_expert(installed, monkeypatch, operator):
    """Found, copied, loaded, and removed with its files."""
    async with test_expert.world_of(installed.server.kubeconfig, monkeypatch, operator=operator) as world:
        await test_expert.to_ready(world, "whole", deletionPolicy="Delete")
        await test_expert.delete(installed.server, "whole")
        for _ in range(2):
            await world.settle("whole")
            await world.answer("whole", "remove")
        await world.settle("whole")
        assert await world.raw("whole") is None


async def live_progress(installed, monkeypatch, operator):
    """A pod posts, with a token of its own."""
    async with transport(installed.server.kubeconfig, monkeypatch) as admin:
        pod = await test_progress.made(installed.server, ApiCluster(admin), "posts")
        bearer = test_progress.token(installed.server, pod)
        async with test_progress.served(ApiCluster(operator)) as url:
            assert await test_progress.answer(url, bearer) == (200, "{}")
        assert (await ApiCluster(admin).get(FINETUNEJOBS, test_progress.NAMESPACE, "posts"))["status"]["progress"]


def watched(resources):
    groups = [(each.api_version.rpartition("/")[0], each.plural) for each in resources]
    return {(*each, verb) for each in groups for verb in ("list", "watch")}


async def test_no_call_is_refused_and_no_rule_is_unused(installed, monkeypatch):
    variables = {
        "LARGEFORGE_NAMESPACES": ",".join(sorted(PLAYED)) if installed.mode == SOME else "",
        "LARGEFORGE_OPERATOR_NAMESPACE": chart.NAMESPACE,
        "LARGEFORGE_LEASE_NAME": OPERATOR,
        "LARGEFORGE_POD_NAME": "audited",
    }
    expected = watched((*CONTROLLERS, *CHILDREN))
    with operators.operator(installed.operator, installed.folder, "audited", variables) as running:
        operators.until(lambda: expected <= installed.used(OPERATOR), running.log)
        running.send(signal.SIGTERM)
        running.ends()
    async with transport(installed.operator, monkeypatch) as operator:
        for live in (live_finetunejob, live_quantizejob, live_inferenceservice, live_expert, live_progress):
            await live(installed, monkeypatch, operator)
    assert [call for call in installed.asked(OPERATOR) if call.refused] == []
    assert {call.account for call in installed.asked(OPERATOR)} == {f"{chart.NAMESPACE}/{OPERATOR}"}
    spare = installed.granted(OPERATOR) - installed.used(OPERATOR)
    # Asked by an admission plugin on behalf of a call, so that no line of the log has it; the next test is about it.
    assert spare == {("largeforge.ai", f"{each.plural}/finalizers", "update") for each in CONTROLLERS}


async def test_the_router_uses_each_of_its_rights_and_no_other(installed, monkeypatch):
    rights = installed.granted(ROUTER)
    async with transport(installed.router, monkeypatch) as router:
        watch = TableWatch(ApiCluster(router), ROUTED, engine_key=lambda _: "k", publish=lambda _: None)
        task = asyncio.create_task(watch.run())
        try:
            async with asyncio.timeout(operators.SECONDS):
                while not rights <= installed.used(ROUTER):  # noqa: ASYNC110 - a file has no event
                    await asyncio.sleep(0.1)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert installed.used(ROUTER) == rights
    assert [call for call in installed.asked(ROUTER) if call.refused] == []


def test_a_child_that_blocks_its_owners_deletion_needs_the_right_on_the_owners_finalizers(installed):
    namespace, server = test_finetunejob.NAMESPACE, installed.server
    owner = json.loads(server.kubectl("get", "finetunejob", "whole", "-n", namespace, "-o", "json").stdout)
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {
        key: owner["metadata"][key] for key in ("name", "uid")
    }
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "child",
            "namespace": namespace,
            "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": True}],
        },
    }
    rules = [rule for role in installed.roles if role["metadata"]["name"] == OPERATOR for rule in role.get("rules", ())]
    less = [rule for rule in rules if not any("/finalizers" in resource for resource in rule["resources"])]
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "less", "namespace": namespace}}
    subject = {"kind": "ServiceAccount", "name": "less", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "less"}
    apply(
        server,
        [
            operators.account("less", namespace),
            head | {"kind": "Role", "rules": less},
            head | {"kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
        ],
    )
    lesser = Server(operators.credentials(server, "less", namespace, installed.folder))
    assert Server(installed.operator).apply(child).returncode == 0
    refused = lesser.apply(child)
    assert "cannot set blockOwnerDeletion" in refused.stderr
