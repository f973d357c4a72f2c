"""The pages' own kubectl and helm lines, run in their order by a shell against a real API server.

There are no controllers: what they would have made is made before the line that asks for it (`BEFORE`).
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dev.cluster.programs import program
from largeforge.api.names import API_VERSION
from tests.commands import PAGES, Command, commands, elsewhere
from tests.integration.conftest import REPO, Server

pytestmark = pytest.mark.integration

VALUES = "imageRegistry: registry.example/team\nrouter: {namespaces: [team]}\n"
EXPERT = """kubectl get expert %s || kubectl apply -f - <<'END'
{"apiVersion": "largeforge.ai/v1alpha1", "kind": "Expert", "metadata": {"name": "%s"}, "spec": {"type": "Model",
 "artifact": {"uri": "pvc://models/base"}, "inferenceServiceRef": {"name": "base"}}}
END"""
KEYS = "kubectl -n largeforge-system create secret generic largeforge-master-key --from-literal=key=a"
CLIENTS = "kubectl -n team create secret generic largeforge-clients --from-literal=default=0123456789abcdef"
BEFORE = {
    # What has to be there before a line of a page, as the operator, a hook or an earlier page would have made it.
    ("backup.md", "kubectl get finetunejobs"): [
        KEYS,
        CLIENTS,
        EXPERT % ("general", "general"),
    ],
    ("backup.md", "kubectl create -f master-key.yaml"): [
        "kubectl delete finetunejobs,quantizejobs,inferenceservices,experts --all --all-namespaces --wait=false",
        "kubectl -n largeforge-system delete secret largeforge-master-key",
        "kubectl -n team delete secret largeforge-clients",
    ],
    ("cli.md", "export LARGEFORGE_API_KEY"): [CLIENTS],
    ("experts.md", "kubectl patch expert sql"): [
        """kubectl patch expert sql --type=merge -p '{"metadata": {"finalizers": ["largeforge.ai/artifact"]}}'"""
    ],
    ("gitops.md", "kubectl apply --server-side --namespace argocd"): ["kubectl create namespace argocd"],
    ("gpu.md", "kubectl -n team port-forward"): [
        "helm template largeforge charts/largeforge --values values.yaml --show-only templates/router/service.yaml"
        " | kubectl apply -f -",
    ],
    ("troubleshooting.md", "kubectl -n NAMESPACE get forge"): [
        # A FineTuneJob of the name that stands for NAME.
        "kubectl apply -f - <<'END'\n"
        '{"apiVersion": "largeforge.ai/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "stuck"}, "spec":'
        ' {"method": "SFT", "base": {"uri": "pvc://models/base"}, "datasets": [{"uri": "pvc://data/train.jsonl"}],'
        ' "output": {"uri": "pvc://models/adapters"}}}\nEND'
    ],
    ("README.md", "kubectl delete expert"): [EXPERT % ("{name}", "{name}")],
    ("README.md", "kubectl wait --for=condition=Ready expert"): [EXPERT % ("{name}", "{name}")],
}


def tried(page: Path) -> list[Command]:
    return [c for c in commands(page) if c.program in {"kubectl", "helm", "export", "cd"} and elsewhere(c) is None]


PARAMETERS = [pytest.param(page, id=str(page.relative_to(REPO))) for page in PAGES if tried(page)]


class Shell:
    """A terminal in a copy of what the page speaks of, in a namespace of its own."""

    def __init__(self, kubeconfig: Path, folder: Path, namespace: str) -> None:
        for name in ("charts", "crds", "examples"):
            shutil.copytree(REPO / name, folder / name)
        (folder / "values.yaml").write_text(VALUES)
        (folder / "token.txt").write_text("hf_0123456789abcdef")
        shutil.copy(kubeconfig, folder / "kubeconfig")
        tools = {str(Path(program(name)).parent) for name in ("kubectl", "helm")}
        self.folder, self.at = folder, folder
        self.environment = {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "HOME": str(folder),
            "PATH": os.pathsep.join((*tools, "/usr/bin", "/bin")),
        }
        for name in (namespace, "team", "largeforge-system"):
            self.run(f"kubectl create namespace {name}")
        self.run(f"kubectl config set-context --current --namespace={namespace}")

    def run(self, line: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", line],
            cwd=self.at,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        there = re.match(r"kubectl (-n \S+ )?create [a-z]", line) and "already exists" in done.stderr
        assert done.returncode == 0 or there, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def make(self, page: Path) -> None:
        """Apply the page's manifests of our kinds."""
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for manifest in yaml.safe_load_all(block):
                if isinstance(manifest, dict) and manifest.get("apiVersion") == API_VERSION:
                    self.run(f"kubectl apply -f - <<'END'\n{json.dumps(manifest)}\nEND")

    def meet(self, line: str) -> None:
        """Say of the objects that *line* waits for what their controllers would say."""
        kind = re.search(r"--for=condition=(\w+)", line)
        for name in re.findall(r" (\w+/[\w-]+)", line) if kind else []:
            said = {"type": kind[1], "status": "True", "reason": kind[1], "message": "", "observedGeneration": 9}
            said["lastTransitionTime"] = "2026-11-25T00:00:00Z"
            status = json.dumps({"status": {"conditions": [said]}})
            where = re.search(r" -n \S+", line)
            self.run(f"kubectl{where[0] if where else ''} patch {name} --subresource=status --type=merge -p '{status}'")


@pytest.fixture
def shell(page: Path, tmp_path: Path, server: Server) -> Shell:
    namespace = re.sub(r"[^a-z0-9]+", "-", str(page.relative_to(REPO)).lower().removesuffix(".md"))
    return Shell(server.kubeconfig, tmp_path, namespace)


def as_run(line: str) -> str:
    """*line* as it can end here: without watching, without waiting for controllers; charts are rendered."""
    line = re.sub(r"^(kubectl (?:-n \S+ )?get .*) -w$", r"\1", line)
    line = re.sub(r"^kubectl -n (\S+) port-forward (\S+) .*", r"kubectl -n \1 get \2", line)
    line = re.sub(r"--timeout=\S+", "--timeout=60s", line)
    line = re.sub(r"^(kubectl delete)\b", r"\1 --wait=false", line)
    line = re.sub(r"^helm (?:install|upgrade(?: --install)?) ", "helm template ", line)
    return line.replace("NAMESPACE", "docs-troubleshooting").replace(" NAME", " stuck").replace("=NAME", "=stuck")


@pytest.mark.parametrize("page", PARAMETERS)
def test_the_lines_of_the_page_are_understood(page: Path, shell: Shell):
    if page.parent.parent.name == "examples":
        shell.at = shell.folder / page.parent.relative_to(REPO)
        (shell.at / "token.txt").write_text("hf_0123456789abcdef")
    shell.make(page)
    for command in tried(page):
        line = as_run(command.text)
        for (name, begin), steps in BEFORE.items():
            if page.name == name and command.text.startswith(begin):
                names = re.findall(r"expert[ /]([\w-]+)", line) or [""]
                for step in steps:
                    for one in names if "{name}" in step else [""]:
                        shell.run(step.replace("{name}", one))
        shell.meet(line)
        shell.run(line)
