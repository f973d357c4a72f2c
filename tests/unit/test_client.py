"""The typed client over a cluster in a dict: what it writes, what it waits for, and how waiting ends."""

import asyncio

import pytest

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.quantizejob import QuantizeJob
from largeforge.client import Client, ClientError, JobFailedError
from largeforge.kube.cluster import WatchEvent
from tests.unit.cli.stage import TellingCluster, expert, job, said, service
from tests.unit.training import ARTIFACT

SPEC = {
    "method": "SFT",
    "base": {"uri": "pvc://models/base"},
    "datasets": [{"uri": "pvc://data/rows.jsonl"}],
    "output": {"uri": "pvc://models/out"},
}
METRICS = [{"name": "eval_loss", "value": "1.25"}]
COMPLETE = {"conditions": [said("Complete", "Succeeded")], "artifact": ARTIFACT, "metrics": METRICS}
FAILED = {"conditions": [said("Failed", "DatasetInvalid", "row 17: no answer")]}


def seen(status, *, generation=1, observed=1):
    made = job(status=status | {"observedGeneration": observed})
    made["metadata"]["generation"] = generation
    return made


def over(found, *changes):
    return Client(TellingCluster(found, scenes=[WatchEvent("MODIFIED", each) for each in changes]), "team")


def asked(*, generation=1):
    return FineTuneJob.model_validate(seen({}, generation=generation))


async def test_only_what_was_given_is_applied_into_the_clients_namespace():
    cluster = TellingCluster()
    wanted = FineTuneJob.model_validate({"metadata": {"name": "sql", "labels": {"team": "a"}}, "spec": SPEC})
    made = await Client(cluster, "team").apply(wanted)
    ((key, stored),) = cluster.objects.items()
    assert key == ("finetunejobs", "team", "sql")
    assert stored["spec"] == SPEC
    assert stored["apiVersion"] == "largeforge.ai/v1alpha1"
    assert stored["metadata"]["labels"] == {"team": "a"}
    assert "status" not in stored
    assert (made.metadata.namespace, made.metadata.uid) == ("team", stored["metadata"]["uid"])
    await Client(cluster, "team").apply(made)
    assert cluster.objects == {key: stored}


async def test_an_object_that_is_not_there_is_none():
    assert await Client(TellingCluster(), "team").get(Expert, "none") is None
    found = await Client(TellingCluster(expert()), "team").get(Expert, "sql")
    assert found is not None
    assert found.spec.service_name == "qwen"


async def test_a_result_has_artifact_metrics_and_expert():
    made = await over(asked().manifest(), seen(COMPLETE | {"expertRef": {"name": "sql"}})).result(asked(), seconds=60)
    assert (made.artifact.uri, made.metrics, made.expert) == (ARTIFACT["uri"], {"eval_loss": 1.25}, "sql")


async def test_a_quantize_jobs_metrics_are_those_of_the_method_that_was_chosen():
    attempts = [
        {"method": "AWQ", "perplexityBefore": "10", "perplexityAfter": "12", "verdict": "Failed"},
        {"method": "GPTQ", "perplexityBefore": "10", "perplexityAfter": "10.1", "verdict": "Passed"},
    ]
    status = COMPLETE | {"observedGeneration": 1, "attempts": attempts, "chosenMethod": "GPTQ"}
    found = job(kind="QuantizeJob", status=status)
    made = await over(found).result(QuantizeJob.model_validate(found), seconds=60)
    assert made.metrics == {"perplexity_before": 10.0, "perplexity": 10.1}


async def test_what_was_said_of_an_earlier_spec_does_not_count():
    client = over(seen(FAILED, generation=2, observed=1), seen(COMPLETE, generation=2, observed=2))
    done = await client.wait(asked(generation=2), seconds=60)
    assert done.status.observed_generation == 2


async def test_a_job_that_fails_ends_the_wait_with_its_reason():
    with pytest.raises(JobFailedError, match="FineTuneJob sql failed, DatasetInvalid: row 17: no answer") as caught:
        await over(seen({}), seen(FAILED)).wait(asked(), seconds=60)
    assert caught.value.reason == "DatasetInvalid"


async def test_services_are_waited_for_until_they_are_ready():
    ready = service(status={"observedGeneration": 1, "conditions": [said("Ready", "Ready")]})
    done = await over(service(), ready).wait(InferenceService.model_validate(service()), seconds=60)
    assert done.status.conditions[0].type == "Ready"


async def test_a_time_that_is_over_is_said_with_the_last_state():
    class Silent(TellingCluster):
        async def watch(self, *_, **__):
            yield WatchEvent("ADDED", seen({"conditions": [said("Complete", "Running", "training", status="False")]}))
            await never()

    with pytest.raises(ClientError, match=r"FineTuneJob sql is not Complete after 0 s: Running: training"):
        await Client(Silent(), "team").wait(asked(), seconds=0.05)


async def never():
    await asyncio.get_running_loop().create_future()


async def test_an_object_that_is_not_there_or_goes_ends_the_wait():
    with pytest.raises(ClientError, match="no FineTuneJob 'sql' in namespace 'team'; apply it first"):
        await Client(TellingCluster(), "team").wait(asked(), seconds=60)
    gone = TellingCluster(seen({}), scenes=[WatchEvent("DELETED", seen({}))])
    with pytest.raises(ClientError, match="FineTuneJob sql was deleted"):
        await Client(gone, "team").wait(asked(), seconds=60)
