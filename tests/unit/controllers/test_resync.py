from __future__ import annotations

from largeforge.api.names import MANAGED_BY, MANAGER
from largeforge.controllers.handlers import CHILD_LABELS, Links, parents, wakes
from largeforge.controllers.resync import Resync, Seen, rests
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, JOBS, ClusterError

LABEL = "largeforge.ai/finetunejob"


def thing(name="sql", *, version="7", phase="Complete", observed=1, namespace="team", labels=None):
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": version,
            "generation": 1,
            "labels": labels or {},
        },
        "spec": {},
        "status": {"phase": phase, "observedGeneration": observed},
    }


def child(name="sql-r1-a1", **fields):
    return thing(name, labels={LABEL: "sql", MANAGED_BY: MANAGER}, **fields)


class Cluster:
    """What is really there."""

    def __init__(self, **objects):
        self.objects = objects
        self.asked = []
        self.refused = ()

    async def list_metadata(self, resource, namespace, *, labels=None):
        self.asked.append((resource.plural, namespace, labels))
        if resource.plural in self.refused:
            raise ClusterError("503")
        found = self.objects.get(resource.plural, [])
        return [{"metadata": o["metadata"]} for o in found if namespace in ("", o["metadata"]["namespace"])]


def sights(**objects):
    """What the watches showed."""
    seen, links = Seen(), Links()
    for resource in (FINETUNEJOBS, INFERENCESERVICES, EXPERTS, JOBS):
        for body in objects.get(resource.plural, []):
            seen.note(resource, body, wakes(resource, body, links, gone=False), gone=False)
    return seen


async def woken(cluster, seen, *, namespaces=("",)):
    found = []
    kinds = {FINETUNEJOBS: None, INFERENCESERVICES: None, JOBS: CHILD_LABELS}
    await Resync(cluster, seen, namespaces, kinds, parents, lambda r, key: found.append((r.plural, str(key)))).once()
    return sorted(found)


async def test_a_finished_job_of_which_nothing_changed_is_not_looked_at():
    there = {"finetunejobs": [thing()], "jobs": [child()]}
    cluster = Cluster(**there)
    assert await woken(cluster, sights(**there)) == []
    assert cluster.asked == [("finetunejobs", "", None), ("inferenceservices", "", None), ("jobs", "", CHILD_LABELS)]


async def test_what_does_not_rest_is_looked_at_whatever_the_watches_showed():
    there = {
        "finetunejobs": [
            thing("a", phase="Running"),
            thing("b", phase="Pending"),
            thing("c", phase="Complete", observed=0),
            thing("d", phase="Suspended"),
        ],
        "inferenceservices": [thing("qwen", phase="Ready")],
    }
    assert await woken(Cluster(**there), sights(**there)) == [
        *(("finetunejobs", f"team/{name}") for name in "abcd"),
        ("inferenceservices", "team/qwen"),
    ]


async def test_a_change_that_the_watch_missed_wakes_the_object_or_its_parent():
    seen = sights(finetunejobs=[thing()], jobs=[child()])
    assert await woken(Cluster(finetunejobs=[thing(version="8")], jobs=[child()]), seen) == [
        ("finetunejobs", "team/sql")
    ]
    assert await woken(Cluster(finetunejobs=[thing()], jobs=[child(version="8")]), seen) == [
        ("finetunejobs", "team/sql")
    ]


async def test_a_child_that_went_while_the_watch_was_cut_wakes_its_parent():
    seen = sights(finetunejobs=[thing()], jobs=[child()])
    assert await woken(Cluster(finetunejobs=[thing()]), seen) == [("finetunejobs", "team/sql")]


async def test_a_job_that_the_watch_did_not_show_is_looked_at():
    assert await woken(Cluster(finetunejobs=[thing()]), Seen()) == [("finetunejobs", "team/sql")]
    assert await woken(Cluster(jobs=[child()]), Seen()) == [("finetunejobs", "team/sql")]


async def test_another_namespaces_objects_are_not_missed():
    seen = sights(finetunejobs=[thing(), thing(namespace="other")])
    there = Cluster(finetunejobs=[thing()])
    assert await woken(there, seen, namespaces=("team",)) == []


async def test_a_kind_that_cannot_be_listed_holds_up_no_other():
    cluster = Cluster(jobs=[child(version="8")])
    cluster.refused = ("finetunejobs",)
    assert await woken(cluster, sights(finetunejobs=[thing()], jobs=[child()])) == [("finetunejobs", "team/sql")]


def test_what_is_gone_is_forgotten():
    seen = sights(finetunejobs=[thing()])
    seen.note(FINETUNEJOBS, thing(), frozenset(), gone=True)
    assert list(seen.missed(FINETUNEJOBS, "", [], parents)) == []


def test_an_expert_and_a_service_never_rest():
    assert not rests(EXPERTS, thing(phase="Complete"))
    assert not rests(INFERENCESERVICES, thing(phase="Complete"))
    assert rests(FINETUNEJOBS, thing(phase="Failed"))
    assert (FINETUNEJOBS, Key("team", "sql")) in parents(JOBS, child())
