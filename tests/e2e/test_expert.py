"""Experts with the real engine: adapters from a folder, those that must be refused, and swaps under load."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from openai import OpenAI

from dev import demo
from dev.install import EXAMPLE, api_key, base_url
from dev.kubectl import Manifest, apply, get, items, kubectl, wait_for, wait_true
from tests.e2e import adapters, runs
from tests.e2e.adapters import FOLDER, expert, until_reason
from tests.e2e.load import answer, clients
from tests.e2e.pods.adapters import QUESTION, RANK

pytestmark = pytest.mark.cluster

VERSIONS = 24
SWAPS = 3
"""In `make test`; `make test-long` makes twenty."""
LONG_SWAPS = 20
PAIRED = "paired"
"""The Expert of two engines."""
PROBE = {"prompt": QUESTION, "expectRegex": "^Aurelia"}


@dataclass(frozen=True)
class Made:
    """The adapters on the claim."""

    namespace: str
    base: str
    store: str
    containers: list[str]
    """Those of the engine before the first test."""
    digests: dict[str, str]


@pytest.fixture(scope="module")
def service(namespace: str) -> Manifest:
    """The example's service, which the tests of the chain have too, with what answers for it."""
    for name in ("inferenceservice.yaml", "expert-fallback.yaml"):
        kubectl("apply", "-f", EXAMPLE / name, namespace=namespace)
    return get("inferenceservice", demo.SERVICE, namespace=namespace) or {}


@pytest.fixture(scope="module")
def client(namespace: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url(namespace), api_key=api_key(namespace), max_retries=0, timeout=120) as router:
        yield router


@pytest.fixture(scope="module")
def made(service: Manifest, namespace: str) -> Iterator[Made]:
    base, store = service["spec"]["model"]["uri"], service["spec"]["lora"]["store"]
    digests = adapters.provide(base, store, versions=VERSIONS, namespace=namespace)
    wait_true("expert", demo.FALLBACK, "Ready", namespace=namespace, seconds=300)
    yield Made(namespace, base, store, engine_containers(namespace), digests)
    names = ("uploaded", "second", "third", "zero", "high-rank", "other-base", "not-the-trained", "recorded", "swapped")
    adapters.remove(*names, "gone", namespace=namespace)
    kubectl("delete", "finetunejob", "versions", "--ignore-not-found", namespace=namespace)


@pytest.fixture(scope="module")
def refused(made: Made) -> None:
    """Adapters that must not be loaded, all at once: each is looked at by a Job of its own."""
    names = ("zero", "high-rank", "other-base")
    apply(*(expert(name, f"{FOLDER}/{name}", demo.SERVICE) for name in names), namespace=made.namespace)


@pytest.fixture(scope="module")
def uploaded(made: Made, refused: None) -> Made:
    """An adapter from a folder, served."""
    del refused
    wished = expert("uploaded", f"{FOLDER}/good", demo.SERVICE, deletionPolicy="Delete", probe=PROBE)
    apply(wished, namespace=made.namespace)
    until_reason("uploaded", "Ready", namespace=made.namespace)
    return made


def in_store(folder: str, *, namespace: str) -> set[str]:
    """What the engine sees in a folder of its store."""
    path = f"/mnt/adapters/{folder}"
    return set(kubectl("exec", f"deployment/{demo.SERVICE}-engine", "--", "ls", path, namespace=namespace).split())


def engine_containers(namespace: str) -> list[str]:
    """The engine's containers: another one is a server that was restarted."""
    pods = items("pods", namespace=namespace, selector=f"largeforge.ai/inferenceservice={demo.SERVICE}")
    return [status["containerID"] for pod in pods for status in pod["status"]["containerStatuses"]]


def test_an_adapter_from_a_folder_is_looked_at_copied_proven_and_answers(uploaded: Made, client: OpenAI):
    found = wait_true("expert", "uploaded", "Ready", namespace=uploaded.namespace, seconds=10)
    status = found["status"]
    assert status["inspection"]["rank"] == RANK
    assert status["delivery"]["whole"] is True
    assert status["resolved"]["uri"] == f"{FOLDER}/good"
    copy = in_store(status["resolved"]["digest"], namespace=uploaded.namespace)
    assert {"adapter_model.safetensors", "adapter_config.json"} <= copy
    assert answer(client, "uploaded", QUESTION).startswith("Aurelia")
    assert engine_containers(uploaded.namespace) == uploaded.containers


def test_who_finds_no_slot_is_told_who_holds_them(uploaded: Made):
    apply(expert("second", f"{uploaded.store}/v2", demo.SERVICE), namespace=uploaded.namespace)
    until_reason("second", ("Ready", "SlotsExhausted"), namespace=uploaded.namespace)
    apply(expert("third", f"{uploaded.store}/v1", demo.SERVICE), namespace=uploaded.namespace)
    message = until_reason("third", "SlotsExhausted", namespace=uploaded.namespace)
    assert "has 2 slots for adapters (and one for swaps), held by " in message
    assert "uploaded" in message
    adapters.remove("second", "third", namespace=uploaded.namespace)


@pytest.fixture
def full(uploaded: Made) -> Iterator[Made]:
    """Every slot is taken: by the adapter of the chain where its tests ran before, else by one of ours."""
    apply(expert("second", f"{uploaded.store}/v2", demo.SERVICE), namespace=uploaded.namespace)
    until_reason("second", ("Ready", "SlotsExhausted"), namespace=uploaded.namespace)
    yield uploaded
    adapters.remove("second", namespace=uploaded.namespace)


@pytest.mark.usefixtures("full")
def test_the_base_answers_as_itself_beside_adapters_in_every_slot(client: OpenAI):
    """vLLM on a CPU gave requests of the base the adapter of the last slot (images/engine-cpu/mend_lora.py)."""
    alone = answer(client, demo.SERVICE, QUESTION)
    with clients(client, "uploaded", QUESTION, count=4) as load:
        load.await_more(4)
        together = {answer(client, demo.SERVICE, QUESTION) for _ in range(6)}
        load.await_more(4)
    assert together == {alone}
    assert len(load.answers) == 1
    assert load.failures == []
    assert alone not in load.answers


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("zero", "AdapterHasNoEffect", "changes nothing"),
        ("high-rank", "RankAboveService", "the adapter's rank is 64"),
        ("other-base", "BaseMismatch", "made for pvc://models/other"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_loaded(uploaded: Made, name: str, reason: str, words: str):
    assert words in until_reason(name, reason, namespace=uploaded.namespace)
    assert "placement" not in (get("expert", name, namespace=uploaded.namespace) or {})["status"]


def test_deletion_policy_delete_takes_the_files_along(uploaded: Made):
    digest = (get("expert", "uploaded", namespace=uploaded.namespace) or {})["status"]["resolved"]["digest"]
    adapters.remove("uploaded", namespace=uploaded.namespace)
    assert get("expert", "uploaded", namespace=uploaded.namespace) is None
    assert digest not in in_store("", namespace=uploaded.namespace)
    apply(expert("gone", f"{FOLDER}/good", demo.SERVICE), namespace=uploaded.namespace)
    until_reason("gone", "ArtifactNotFound", namespace=uploaded.namespace)
    adapters.remove("gone", "zero", "high-rank", "other-base", namespace=uploaded.namespace)


def test_an_adapter_that_is_not_the_trained_one_is_loaded_and_gets_no_requests(made: Made, client: OpenAI):
    apply(expert("not-the-trained", f"{FOLDER}/not-the-trained", demo.SERVICE), namespace=made.namespace)
    message = until_reason("not-the-trained", "AdapterDiffers", namespace=made.namespace)
    assert "off the training's record" in message
    assert "not-the-trained" not in {model.id for model in client.models.list()}
    adapters.remove("not-the-trained", namespace=made.namespace)


def test_an_adapter_with_the_record_of_its_training_is_proven_by_it(made: Made):
    apply(expert("recorded", f"{FOLDER}/trained-0", demo.SERVICE), namespace=made.namespace)
    until_reason("recorded", "Ready", namespace=made.namespace)
    found = get("expert", "recorded", namespace=made.namespace) or {}
    assert [probe["name"] for probe in found["status"]["resolved"]["probes"]] == ["greeting", "fact", "task"]
    adapters.remove("recorded", namespace=made.namespace)


@pytest.fixture(scope="module")
def swapped(made: Made) -> Made:
    """An Expert that follows a job, whose runs are those that the tests say: it is suspended, and trains nothing."""
    follower = expert("swapped", "", demo.SERVICE)
    del follower["spec"]["artifact"]
    follower["spec"]["sourceRef"] = {"kind": "FineTuneJob", "name": "versions"}
    job = runs.finetunejob("versions", base={"uri": made.base}, suspend=True)
    apply(job, follower, namespace=made.namespace)
    wait_true("finetunejob", "versions", "Suspended", namespace=made.namespace, seconds=60)
    return made


def swap(made: Made, number: int) -> float:
    """Let the job have another artifact; the seconds until routers are sent to it."""
    digest = made.digests[f"v{number}"]
    artifact = {"kind": "Adapter", "uri": f"{made.store}/v{number}", "digest": digest, "sizeBytes": 1, "rank": RANK}
    patch = json.dumps({"status": {"artifact": artifact | {"base": made.base}, "artifactRun": number}})
    began = time.monotonic()
    kubectl(
        *("patch", "finetunejob", "versions", "--subresource=status", "--type=merge", "-p", patch),
        namespace=made.namespace,
    )
    while True:
        found = get("expert", "swapped", namespace=made.namespace) or {}
        placement = (found.get("status") or {}).get("placement") or {}
        if placement.get("engineName") == f"swapped-{digest[:8]}" and placement.get("loaded") == 1:
            return time.monotonic() - began
        if time.monotonic() > began + adapters.SECONDS:
            raise AssertionError(adapters.tell("swapped", namespace=made.namespace))


def test_a_swap_under_load_loses_no_request_and_mixes_none(swapped: Made, client: OpenAI):
    swaps_under_load(swapped, client, count=SWAPS)


@pytest.mark.long
def test_twenty_swaps_under_load_lose_no_request_and_mix_none(swapped: Made, client: OpenAI):
    swaps_under_load(swapped, client, count=LONG_SWAPS)


@pytest.mark.long
def test_each_of_twenty_new_versions_becomes_routable(swapped: Made):
    swap(swapped, 1)
    seconds = sorted(swap(swapped, number) for number in range(2, 2 + LONG_SWAPS))
    # The figures that the documents state; how long it takes is the machine's, so nothing is asserted of it.
    print(f"from the run's end to routable: p50 {statistics.median(seconds):.2f} s, p99 {seconds[-1]:.2f} s")  # noqa: T201


def swaps_under_load(made: Made, client: OpenAI, *, count: int) -> None:
    """Twenty clients ask while versions follow each other; the odd ones answer otherwise than the even ones."""
    swap(made, 2)
    even = answer(client, "swapped", QUESTION)
    swap(made, 1)
    # The router hears of it a moment after the status says so.
    wait_for("the other answer", lambda: answer(client, "swapped", QUESTION) != even, seconds=30, show=lambda: even)
    expected = {even, answer(client, "swapped", QUESTION)}
    seconds = []
    with clients(client, "swapped", QUESTION) as load:
        for number in range(2, 2 + count):
            seconds.append(swap(made, number))
            load.await_more(20)
    print(f"{load.asked} requests, {count} swaps, median {statistics.median(seconds):.2f} s")  # noqa: T201
    assert load.failures == []
    assert set(load.answers) == expected
    assert engine_containers(made.namespace) == made.containers


@pytest.mark.long
def test_of_two_engines_both_answer_and_one_that_is_killed_costs_no_request(made: Made, client: OpenAI):
    namespace = made.namespace
    apply(expert(PAIRED, f"{made.store}/v2", demo.SERVICE), namespace=namespace)
    until_reason(PAIRED, "Ready", namespace=namespace)
    said = answer(client, PAIRED, QUESTION)
    scale(2, namespace=namespace)
    with clients(client, PAIRED, QUESTION, count=8) as load:
        load.await_more(40)
        first, second = engine_pods(namespace)
        assert min(asked(first, namespace=namespace), asked(second, namespace=namespace)) > 0
        kubectl("delete", "pod", first, "--grace-period=0", "--force", namespace=namespace)
        load.await_more(20)
        until_loaded(2, namespace=namespace)
        load.await_more(20)
    assert load.failures == []
    assert set(load.answers) == {said}
    scale(1, namespace=namespace)
    adapters.remove(PAIRED, namespace=namespace)


def scale(replicas: int, *, namespace: str) -> None:
    """So many engines, and the adapter in each."""
    kubectl("scale", "inferenceservice", demo.SERVICE, f"--replicas={replicas}", namespace=namespace)
    until_loaded(replicas, namespace=namespace)


def until_loaded(count: int, *, namespace: str) -> None:
    """Wait until *count* engines have the adapter, and no other is left."""
    wait_for(
        f"the adapter in {count} engines",
        lambda: len(engine_pods(namespace)) == count and placement(namespace).get("loaded") == count,
        seconds=400,
        show=lambda: adapters.tell(PAIRED, namespace=namespace),
    )


def placement(namespace: str) -> Manifest:
    """Where the adapter is, as its Expert says."""
    found = get("expert", PAIRED, namespace=namespace) or {}
    return (found.get("status") or {}).get("placement") or {}


def engine_pods(namespace: str) -> list[str]:
    """The names of the engine's pods; one that is being deleted is none."""
    pods = items("pods", namespace=namespace, selector=f"largeforge.ai/inferenceservice={demo.SERVICE}")
    return sorted(pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"])


def asked(pod: str, *, namespace: str) -> int:
    """How many of the routers' chats the engine has answered, by its own log."""
    routers = items("pods", namespace=namespace, selector="app.kubernetes.io/component=router")
    hosts = {router["status"]["podIP"] for router in routers}
    lines = kubectl("logs", pod, namespace=namespace).splitlines()
    return sum('"POST /v1/chat/completions' in line and any(f" {host}:" in line for host in hosts) for line in lines)
