"""The examples as a GitOps controller keeps them: after the operator has acted, nothing differs from the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import REPO, Server
from tests.integration.operators import operator, until
from tests.integration.test_chart import apply

pytestmark = pytest.mark.integration

EXAMPLES = sorted((REPO / "examples").rglob("*.yaml"))
MANAGER = "--field-manager=argocd-controller"
GROUP = "largeforge.ai/v1alpha1"
KINDS = "finetunejobs,quantizejobs,inferenceservices,experts"


def title(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def namespace(path: Path) -> str:
    """Each example has one of its own."""
    return f"gitops-{path.parent.name}"


def difference(server: Server, namespace: str, path: Path) -> str:
    """What Argo CD's server-side diff shows: an apply by its own manager, dry, beside what is there."""
    done = server.kubectl("diff", "--server-side", "--force-conflicts", MANAGER, "-n", namespace, "-f", str(path))
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def seen(raw: dict[str, Any]) -> bool:
    """Whether the operator has said something of the newest spec."""
    conditions = raw.get("status", {}).get("conditions", [])
    return any(each.get("observedGeneration") == raw["metadata"]["generation"] for each in conditions)


@pytest.fixture(scope="module")
def reconciled(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All the examples, applied as Argo CD does and seen by the operator, which goes on."""
    places = sorted({namespace(path) for path in EXAMPLES})
    apply(server, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in places])
    for path in EXAMPLES:
        done = server.kubectl("apply", "--server-side", MANAGER, "-n", namespace(path), "-f", str(path))
        assert done.returncode == 0, done.stderr
    wanted = {
        (namespace(path), each["kind"], each["metadata"]["name"])
        for path in EXAMPLES
        for each in yaml.safe_load_all(path.read_text())
        if each["apiVersion"] == GROUP
    }

    def unseen() -> set[tuple[str, str, str]]:
        found = json.loads(server.kubectl("get", KINDS, "--all-namespaces", "-o", "json").stdout)["items"]
        return wanted - {(o["metadata"]["namespace"], o["kind"], o["metadata"]["name"]) for o in found if seen(o)}

    folder = tmp_path_factory.mktemp("gitops")
    with operator(server.kubeconfig, folder, "gitops", {"LARGEFORGE_NAMESPACES": ",".join(places)}) as running:
        until(lambda: not unseen(), lambda: f"{unseen()}\n{running.log()}")
        yield server
    for name in places:
        server.kubectl("delete", KINDS, "--all", "-n", name)


@pytest.mark.parametrize("path", EXAMPLES, ids=title)
def test_nothing_differs_from_the_repository_when_the_operator_has_acted(reconciled: Server, path: Path):
    assert difference(reconciled, namespace(path), path) == ""


def test_a_change_by_hand_would_be_shown(reconciled: Server):
    path = next(path for path in EXAMPLES if path.name == "expert.yaml")
    change = json.dumps({"spec": {"stage": "Production"}})
    found = yaml.safe_load(path.read_text())["metadata"]["name"]
    done = reconciled.kubectl("patch", "expert", found, "-n", namespace(path), "--type=merge", "-p", change)
    assert done.returncode == 0, done.stderr
    assert "stage: Production" in difference(reconciled, namespace(path), path)
