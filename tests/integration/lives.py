"""The life of a FineTuneJob beside an operator that runs: the test waits for what it says, then goes on."""

from __future__ import annotations

import asyncio
import difflib
import json
import time

from largeforge.api.meta import is_true
from largeforge.kube.cluster import CONFIGMAPS, EXPERTS, FINETUNEJOBS, JOBS
from tests.integration.operators import SECONDS

EPHEMERAL = frozenset(("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "activeSeconds"))
REST_SECONDS = 4.0
"""Two resyncs of an operator of these tests."""
TIMES = ("Time", "time", "Since", "since")


async def until(holds, say):
    """As in `operators`, beside what else goes on in this loop."""
    deadline = time.monotonic() + SECONDS
    while not await holds():
        assert time.monotonic() < deadline, await say()
        await asyncio.sleep(0.05)


async def seen(job, holds):
    """Wait until the status of *job* and its newest attempt's batch Job are as *holds* says."""

    async def now():
        await job.collect()
        status = (await job.job()).status
        batch = await job.api.get(JOBS, job.namespace, status.run.job_name) if status.run else None
        return status.run is not None and holds(status, batch)

    async def say():
        return (await job.job()).status.manifest()

    await until(now, say)


def spec_of(name):
    """What the user applies first; a story begins with a job that was made of it (`play`)."""
    return {"publish": {"expert": {"name": name, "inferenceServiceRef": {"name": "qwen"}}}}


async def begin(job):
    """Its preflight seen running."""
    await seen(job, lambda status, batch: status.run.job_name == f"{job.name}-r1-p1" and batch)
    await job.pod()
    await seen(job, lambda status, _: status.phase == "Preflight")


async def train(job):
    """Checked, and its training seen running."""
    await job.succeed()
    await seen(job, lambda status, batch: status.run.job_name == f"{job.name}-r1-a1" and batch)
    await job.pod()
    await seen(job, lambda status, _: status.phase == "Running")


async def pause(job):
    """Suspended, and taken up again with another attempt, which runs."""
    await job.apply(**spec_of(job.name), suspend=True)
    await seen(job, lambda status, batch: is_true(status.conditions, "Suspended") and batch is None)
    await job.apply(**spec_of(job.name))
    await seen(job, lambda status, batch: status.run.job_name == f"{job.name}-r1-a2" and batch)
    await job.pod()
    await seen(job, lambda status, _: status.phase == "Running")


async def finish(job):
    """Complete, with its Expert, of which all is said: routers are looked for in their own time."""
    await job.succeed()
    await seen(job, lambda status, _: is_true(status.conditions, "Complete"))

    async def distinct():
        status = (await job.api.get(EXPERTS, job.namespace, job.name) or {}).get("status", {})
        return next((c["reason"] for c in status.get("conditions", ()) if c["type"] == "Distinct"), "")

    async def looked():
        return await distinct() not in ("", "Pending")

    await until(looked, distinct)


LIFE = (begin, train, pause, finish)


async def live(job):
    for step in LIFE:
        await step(job)


async def rest(between):
    """Wait until nothing has been written for `REST_SECONDS`."""
    count, since = -1, 0.0

    async def quiet():
        nonlocal count, since
        if len(between.writes) != count:
            count, since = len(between.writes), time.monotonic()
        return time.monotonic() - since > REST_SECONDS

    async def say():
        return [str(each) for each in between.writes[-20:]]

    await until(quiet, say)


async def ended(job, *, events=True):
    """All that is left of the life, without what differs from one to another: names, times and uids."""
    kept = {"job": [await job.api.get(FINETUNEJOBS, job.namespace, job.name)]}
    for resource in (JOBS, CONFIGMAPS, EXPERTS):
        label = {job.label: job.name}
        found = await job.api.list(resource, job.namespace, labels=label)
        kept[resource.plural] = sorted(found, key=lambda each: each["metadata"]["name"])
    if events:
        kept["events"] = await job.events()
    uids = [each["metadata"]["uid"] for found in kept.values() for each in found if isinstance(each, dict)]
    text = json.dumps(_plain(kept))
    for uid in uids:
        text = text.replace(uid, "uid")
    return json.loads(text.replace(job.name, "name"))


async def ends_as(job, expected, *, events=True):
    """Wait until all is as *expected*, the end of an undisturbed life."""

    async def same():
        return await ended(job, events=events) == expected

    async def difference():
        found = await ended(job, events=events)
        texts = (json.dumps(each, indent=1).splitlines() for each in (expected, found))
        return "\n".join(difflib.unified_diff(*texts, "undisturbed", "disturbed", n=8, lineterm=""))

    await until(same, difference)


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in EPHEMERAL and not k.endswith(TIMES)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
