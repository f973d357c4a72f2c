"""From a pod's post to the status of its FineTuneJob or QuantizeJob: whose it is, and how often it is written."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.names import API_VERSION, PROGRESS_MANAGER
from largeforge.api.quantizejob import QuantizeJob
from largeforge.controllers.context import utc_now
from largeforge.controllers.metrics import PROGRESS_WRITES
from largeforge.controllers.plan import read, with_status
from largeforge.controllers.progress import Posted, metrics_of, progress_of
from largeforge.controllers.progresstokens import BoundPod
from largeforge.kube.cluster import (
    FINETUNEJOBS,
    JOBS,
    PODS,
    QUANTIZEJOBS,
    Cluster,
    ClusterError,
    Conflict,
    Manifest,
    Resource,
)

log = logging.getLogger(__name__)

WRITE_SECONDS = 15.0
"""Between two writes of one job's status."""
RETRY_SECONDS = 1.0
"""After another writer was first."""
POSTS_AT_ONCE = 5.0
POSTS_A_SECOND = 1.0
"""What a pod may post; ours post once in five seconds."""
FORGET_SECONDS = 600.0
"""How long a pod that posts nothing is remembered."""

_OWNERS = {(API_VERSION, "FineTuneJob"): FINETUNEJOBS, (API_VERSION, "QuantizeJob"): QUANTIZEJOBS}
_MODELS: Mapping[str, type[FineTuneJob | QuantizeJob]] = {"FineTuneJob": FineTuneJob, "QuantizeJob": QuantizeJob}


class Refused(Exception):  # noqa: N818 - the answer
    """The pod is none that may report progress now."""


class Busy(Exception):  # noqa: N818 - the answer
    """The pod posts too often."""


@dataclass(slots=True)
class _Sender:
    """What is known of one pod that posts."""

    pod: BoundPod
    seen: float
    allowance: float = POSTS_AT_ONCE
    due: float = 0.0
    """When the next write may be."""
    waiting: tuple[Posted, datetime] | None = None
    """What came since the last one."""
    finished: bool = False
    """Whether the last step was written."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class Board:
    """Takes posts and writes the newest of each pod: its first and its last at once, else one in `WRITE_SECONDS`.

    A pod is looked up at each write, so what it posts in between is taken on the word of a look `WRITE_SECONDS` ago.
    """

    cluster: Cluster
    namespaces: frozenset[str] = frozenset()
    """Those that are served; none means all of them."""
    now: Callable[[], datetime] = utc_now
    clock: Callable[[], float] = time.monotonic
    _senders: dict[str, _Sender] = field(default_factory=dict)

    async def take(self, pod: BoundPod, posted: Posted) -> None:
        """Take what *pod* posted. Raises `Refused`, `Busy`, and `ClusterError` where it could not be looked up."""
        moment = self.clock()
        sender = self._senders.get(pod.uid)
        if sender is None:
            sender = self._senders[pod.uid] = _Sender(pod, moment, due=moment)
        sender.allowance = min(sender.allowance + (moment - sender.seen) * POSTS_A_SECOND, POSTS_AT_ONCE)
        sender.seen = moment
        if sender.allowance < 1:
            raise Busy
        sender.allowance -= 1
        sender.waiting = (posted, self.now())
        if moment >= sender.due or (posted.last and not sender.finished):
            await self._write(sender)

    async def flush(self) -> None:
        """Write what waits and is due; forget pods that are silent."""
        for uid, sender in list(self._senders.items()):
            moment = self.clock()
            if sender.waiting is not None and moment >= sender.due:
                try:
                    await self._write(sender)
                except (Refused, ClusterError) as exc:
                    log.info("progress of pod %s/%s: %s", sender.pod.namespace, sender.pod.name, exc)
            if moment - sender.seen > FORGET_SECONDS:
                self._senders.pop(uid, None)

    async def _write(self, sender: _Sender) -> None:
        async with sender.lock:
            waiting = sender.waiting
            if waiting is None:
                return  # a post that came at the same time has taken it along
            sender.due = self.clock() + WRITE_SECONDS
            sender.waiting = None
            try:
                await self._apply(sender.pod, *waiting)
            except Conflict:
                # The operator itself writes a status now and then: look again, a newer post goes first.
                sender.waiting = sender.waiting or waiting
                sender.due = self.clock() + RETRY_SECONDS
                PROGRESS_WRITES.labels("conflict").inc()
            except Refused:
                sender.due = 0.0  # each post is looked at
                PROGRESS_WRITES.labels("refused").inc()
                raise
            except ClusterError:
                sender.waiting = sender.waiting or waiting
                PROGRESS_WRITES.labels("error").inc()
                raise
            else:
                sender.finished = sender.finished or waiting[0].last
                PROGRESS_WRITES.labels("ok").inc()

    async def _apply(self, pod: BoundPod, posted: Posted, at: datetime) -> None:
        raw, job = await self._job_of(pod)
        before = job.status.progress
        if before is not None and before.last_update_time is not None and before.last_update_time > at:
            return  # another replica has a newer one
        status: Manifest = {"progress": progress_of(posted, now=at).manifest()}
        if isinstance(job, FineTuneJob):
            status["metrics"] = [metric.manifest() for metric in metrics_of(posted)]
        # Upon this very version: an attempt that was over meanwhile must not speak for the next one.
        await self.cluster.patch_status(with_status(raw, status), manager=PROGRESS_MANAGER)

    async def _job_of(self, bound: BoundPod) -> tuple[Manifest, FineTuneJob | QuantizeJob]:
        """The job whose newest attempt *bound* is: by uids, from the pod through its batch Job."""
        namespace = bound.namespace
        if self.namespaces and namespace not in self.namespaces:
            raise Refused(f"namespace {namespace!r} is not served")
        pod = await self.cluster.get(PODS, namespace, bound.name)
        if pod is None or pod["metadata"]["uid"] != bound.uid:
            raise Refused("the pod is gone")
        if "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            raise Refused("the pod has ended")
        batch = await self._controller(pod, {("batch/v1", "Job"): JOBS})
        raw = await self._controller(batch, _OWNERS)
        job = read(_MODELS[raw["kind"]], raw)
        if isinstance(job, ValidationError):
            raise Refused(f"this operator cannot read the pod's {raw['kind']}")
        run = job.status.run
        # Preflight posts nothing: it has no token.
        current = run is not None and run.outcome is None and run.stage != "Preflight"
        if run is None or not current or run.job_name != batch["metadata"]["name"]:
            raise Refused(f"the pod is not of its {raw['kind']}'s newest attempt")
        return raw, job

    async def _controller(self, child: Manifest, owners: Mapping[tuple[str, str], Resource]) -> Manifest:
        for reference in child["metadata"].get("ownerReferences", []):
            resource = owners.get((reference["apiVersion"], reference["kind"]))
            if resource is not None and reference.get("controller"):
                found = await self.cluster.get(resource, child["metadata"]["namespace"], reference["name"])
                if found is not None and found["metadata"]["uid"] == reference["uid"]:
                    return found
        raise Refused(f"the pod is not a {' or '.join(kind for _, kind in owners)}'s")
