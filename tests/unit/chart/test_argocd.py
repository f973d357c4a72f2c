"""Argo CD shows what our objects say: its Lua on statuses that the controllers have written."""

import json
import re

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from dev import argocd, chart
from dev.paths import REPO
from largeforge.api import crds
from largeforge.api.routerreport import RouterReport
from largeforge.controllers import inferenceservice
from largeforge.controllers.progress import parse, progress_of
from largeforge.controllers.workqueue import Key
from tests.unit import quantizing, training, world
from tests.unit.progress import post
from tests.unit.serving import (
    NAMESPACE,
    World,
    complete_job,
    expert_manifest,
    metadata,
    pod_manifest,
    service_manifest,
)
from tests.unit.training import NOW, failure

UNSEEN = ("Progressing", "the operator has not seen the newest spec yet")


def health(shown):
    """What Argo CD makes of the object: Lua 5.1, of whose libraries it opens `package`, the base and `table`."""
    lua = LuaRuntime(register_eval=False, register_builtins=False)
    lua.execute('getmetatable("").__index = nil; string, math, io, os, debug, coroutine, python = nil')
    lua.globals()["obj"] = lua.table_from(json.loads(json.dumps(shown)), recursive=True)
    said = lua.execute(argocd.script(shown["kind"]))
    return said["status"], said["message"]


def with_progress(shown, **fields):
    """*shown* after its trainer has posted step 120 of 400."""
    progress = progress_of(parse(post(**fields)), now=NOW)
    return shown | {"status": shown["status"] | {"progress": progress.manifest()}}


async def trained(**spec):
    made = await world.world_of(**spec).to_training()
    made.start_pod()
    await made.settle()
    return made


def newer(shown):
    """The same with a spec that nobody has seen yet."""
    return shown | {"metadata": shown["metadata"] | {"generation": shown["metadata"]["generation"] + 1}}


# FineTuneJob


async def test_a_new_job_is_on_its_way_before_and_after_it_is_seen():
    assert health(training.manifest()) == UNSEEN
    made = world.world_of()
    await made.settle()
    assert health(made.raw) == ("Progressing", made.status.message)
    assert made.status.message


async def test_a_training_run_shows_its_step_loss_and_remaining_time():
    made = await trained()
    assert health(made.raw) == ("Progressing", "attempt 1 is training")
    assert health(with_progress(made.raw)) == ("Progressing", "step 120/400, loss 1.832, ETA 12m")


async def test_a_suspended_job_is_suspended_whatever_it_had_reached():
    made = await trained()
    made.edit(suspend=True)
    assert health(made.raw) == UNSEEN
    await made.settle()
    said = "run 1 is held; set spec.suspend: false to go on"
    assert health(with_progress(made.raw)) == ("Suspended", said)


async def test_a_complete_job_is_healthy_until_its_spec_changes():
    made = await world.world_of().complete()
    status, message = health(made.raw)
    assert (status, message) == ("Healthy", made.said("Complete")[2])
    assert training.ARTIFACT["uri"] in message
    assert health(newer(made.raw)) == UNSEEN


async def test_a_failed_job_is_degraded_with_the_runs_own_words():
    made = await trained()
    made.end(65, failure("DatasetInvalid", "row 17: no answer", digest=made.status.run.digest))
    await made.settle()
    status, message = health(made.raw)
    assert status == "Degraded"
    assert "row 17: no answer" in message


async def test_a_job_that_waits_for_its_storage_says_for_what():
    made = world.world_of(claims=("data",))
    await made.settle()
    status, message = health(made.raw)
    assert status == "Progressing"
    assert "no PersistentVolumeClaim 'models'" in message


async def test_what_the_installation_does_not_allow_is_degraded():
    made = world.world_of(serviceAccountName="trainer")
    await made.settle()
    status, message = health(made.raw)
    assert status == "Degraded"
    assert "training.serviceAccounts" in message


async def test_an_object_that_the_operator_cannot_read_is_degraded_until_it_is_changed():
    made = await world.world_of().complete()
    made.edit(method="GRPO")
    await made.settle()
    status, message = health(made.raw)
    assert status == "Degraded"
    assert "install the operator that its CRD is of" in message
    made.edit(method="SFT")
    assert health(made.raw) == UNSEEN


# QuantizeJob


async def test_a_quantize_job_says_which_method_is_at_work_and_how_far_it_is():
    made = await quantizing.world_of().go_to("Quantize", "GPTQ")
    made.start_pod()
    await made.settle()
    doing = "attempt 1 quantizes by method 2 of 2, GPTQ"
    assert health(made.raw) == ("Progressing", doing)
    assert health(with_progress(made.raw, step=3, total=30, loss="2")) == (
        "Progressing",
        f"{doing}: step 3/30, loss 2, ETA 12m",
    )
    made.edit(suspend=True)
    await made.settle()
    assert health(made.raw)[0] == "Suspended"


async def test_a_quantize_job_is_healthy_with_the_method_that_passed():
    made = await quantizing.world_of().complete(20.2)
    assert health(made.raw) == ("Healthy", "AWQ: pvc://models/small/small-awq")


async def test_a_quantize_job_whose_methods_all_lose_too_much_is_degraded():
    made = await quantizing.world_of().complete(24, 30)
    status, message = health(made.raw)
    assert status == "Degraded"
    assert "loosen spec.qualityGate" in message


# InferenceService


@pytest.fixture
def served():
    return World(service_manifest(), complete_job(), expert_manifest(), pod_manifest())


def shown(of, plural="inferenceservices", name="smol"):
    return of.raw(plural, name)


async def test_a_service_is_on_its_way_until_every_replica_has_answered(served):
    assert health(service_manifest()) == UNSEEN
    await served.look()
    assert health(shown(served)) == ("Healthy", "1 of 1 replicas answered a generation")
    served.edit("inferenceservices", "smol", replicas=2)
    assert health(shown(served)) == UNSEEN
    await served.look()
    assert health(shown(served)) == ("Progressing", "1 pods are there, 2 are wanted")


@pytest.mark.parametrize("spec", [{"stopped": True}, {"replicas": 0}])
async def test_a_service_that_somebody_stopped_is_suspended(spec):
    made = World(service_manifest(**spec))
    await made.look()
    assert health(shown(made)) == ("Suspended", made.said(made.service(), "Ready")[2])


async def test_a_service_that_time_does_not_cure_is_degraded():
    ended = {"exitCode": 1, "message": "ValueError: Model architectures ['Foo'] are not supported for now."}
    made = World(service_manifest(), pod_manifest(ready=False, container_status={"lastState": {"terminated": ended}}))
    await made.look()
    assert made.said(made.service(), "Ready")[1] == "UnsupportedArchitecture"
    assert health(shown(made)) == ("Degraded", made.said(made.service(), "Stalled")[2])


async def test_a_service_that_the_api_server_refuses_is_degraded():
    made = World(service_manifest())
    made.cluster.refuse = ("apply", "Deployment")
    await inferenceservice.reconcile(Key(NAMESPACE, "smol"), made)
    assert made.said(made.service(), "Ready")[1] == "Refused"
    assert health(shown(made))[0] == "Degraded"


# Expert


async def test_an_expert_is_healthy_once_a_pod_has_proven_it(served):
    assert health(expert_manifest()) == UNSEEN
    await served.look()
    assert health(shown(served, "experts", "sql")) == ("Healthy", "served as sql-aaaaaaaa on 1 of 1 pods")


async def test_an_expert_waits_for_its_run_and_its_service():
    made = World(service_manifest(), complete_job() | {"status": {"phase": "Running"}}, expert_manifest())
    await made.look()
    assert health(shown(made, "experts", "sql"))[0] == "Progressing"
    made.cluster.put(complete_job())
    await made.look()
    status, message = health(shown(made, "experts", "sql"))
    assert status == "Progressing"
    assert "no pod of InferenceService 'smol' is ready" in message


async def test_an_expert_that_does_not_fit_is_degraded_even_while_its_older_version_serves(served):
    await served.look()
    served.cluster.put(complete_job(digest="b" * 64, run=2, base="pvc://models/other"))
    await served.look()
    assert served.said(served.expert(), "Ready")[0] == "True"
    assert health(shown(served, "experts", "sql")) == (
        "Degraded",
        served.said(served.expert(), "Compatible")[2],
    )


async def test_an_expert_without_its_source_is_degraded():
    made = World(service_manifest(), expert_manifest(), pod_manifest())
    await made.look()
    assert made.said(made.expert(), "Ready")[1] == "SourceNotFound"
    assert health(shown(made, "experts", "sql"))[0] == "Degraded"


async def test_an_archived_expert_is_suspended(served):
    served.edit("experts", "sql", stage="Archived")
    await served.look()
    assert health(shown(served, "experts", "sql"))[0] == "Suspended"


async def test_an_external_expert_is_on_its_way_until_its_endpoint_has_answered():
    spec = {"type": "External", "endpoint": {"url": "https://llm.example.com"}}
    made = World(
        {"apiVersion": "largeforge.ai/v1alpha1", "kind": "Expert", "metadata": metadata("cloud"), "spec": spec}
    )
    made.reports.take(NAMESPACE, _report())
    await made.look()
    assert health(shown(made, "experts", "cloud")) == ("Progressing", "no router has asked it yet")
    for ok, expected in ((False, "Degraded"), (True, "Healthy")):
        made.reports.take(NAMESPACE, _report({"ok": ok, "message": "401", "time": NOW.isoformat()}))
        await made.look()
        assert health(shown(made, "experts", "cloud"))[0] == expected


def _report(probe=None):
    told = {"name": "cloud", "generation": 1} | ({"probe": probe} if probe else {})
    return RouterReport.model_validate({"experts": [told]})


# What ships


def test_argo_cds_settings_have_a_check_of_each_kind_and_are_current():
    assert argocd.SETTINGS.read_text() == argocd.render(), "run: make generate"
    entries = yaml.safe_load(argocd.SETTINGS.read_text())["data"]
    assert entries == {
        f"resource.customizations.health.largeforge.ai_{kind.name}": argocd.script(kind.name) for kind in crds.KINDS
    }


APPLICATION = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str},
    "spec": {
        "project": str,
        "source": {
            "repoURL": str,
            "targetRevision": str,
            "path": str,
            "helm": {"releaseName": str, "valuesObject": dict},
        },
        "destination": {"server": str, "namespace": str},
        "syncPolicy": {"automated": {"prune": bool, "selfHeal": bool}, "syncOptions": list},
    },
}
"""The fields of Argo CD's Application (argoproj.io/v1alpha1) that the page uses, with their types."""


def unknown(written, known, path):
    """Paths of *written* that *known* does not have, or whose value is of another type."""
    if isinstance(known, dict):
        fields = written if isinstance(written, dict) else {}
        return [u for k, v in fields.items() for u in unknown(v, known.get(k), f"{path}.{k}")]
    return [] if known is not None and isinstance(written, known) else [path]


def applications():
    page = (REPO / "docs" / "gitops.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    found = [yaml.safe_load(block) for block in blocks]
    return {each["metadata"]["name"]: each for each in found if each["kind"] == "Application"}


def test_the_applications_of_the_page_have_fields_that_argo_cd_knows():
    assert set(applications()) == {"largeforge", "sales-models"}
    for name, each in applications().items():
        assert each["apiVersion"] == "argoproj.io/v1alpha1"
        assert unknown(each, APPLICATION, name) == []


@pytest.mark.skipif(not chart.program("helm").exists(), reason="Helm is not built yet; `make generate` builds it")
def test_the_chart_takes_the_values_of_the_pages_application(tmp_path):
    source = applications()["largeforge"]["spec"]["source"]
    assert REPO / source["path"] == chart.CHART
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps(source["helm"]["valuesObject"]))
    done = chart.template("--values", values)
    assert done.returncode == 0, done.stderr
    assert "registry.example/team/largeforge-operator" in done.stdout


def test_the_page_applies_the_file_that_is_generated():
    assert str(argocd.SETTINGS.relative_to(REPO)) in (REPO / "docs" / "gitops.md").read_text()
