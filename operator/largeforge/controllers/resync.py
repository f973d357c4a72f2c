"""The slow look at everything: what the watches may have missed, and what they do not see.

kopf resumes a cut watch, and after one that is too old it lists again, which says nothing of what was deleted
meanwhile. So from time to time every kind is listed, metadata alone, and compared with what the watches showed. What
differs is looked at; of what does not, only what rests is passed over: a thousand finished jobs cost a few lists, not
thousands of requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import FINETUNEJOBS, QUANTIZEJOBS, Cluster, ClusterError, Resource

log = logging.getLogger(__name__)

RESTING = frozenset({"Complete", "Failed"})
"""Phases of a job after which nothing follows but from a change of what is watched; timers are the queue's."""

Wake = tuple[Resource, Key]
Parents = Callable[[Resource, Mapping[str, Any]], Iterable[Wake]]


@dataclass(frozen=True, slots=True)
class Sight:
    """An object as a watch showed it last."""

    version: str
    wakes: frozenset[Wake]
    """Whom its change woke."""
    rests: bool


class Seen:
    """What the watches showed: an entry for each object that is watched, without its content."""

    def __init__(self) -> None:
        self._sights: dict[Resource, dict[Key, Sight]] = {}

    def note(self, resource: Resource, body: Mapping[str, Any], wakes: frozenset[Wake], *, gone: bool) -> None:
        """A watch showed *body*, whose change wakes *wakes*."""
        metadata = body["metadata"]
        sights, key = self._sights.setdefault(resource, {}), Key(metadata["namespace"], metadata["name"])
        if gone:
            sights.pop(key, None)
        else:
            sights[key] = Sight(metadata["resourceVersion"], wakes, rests(resource, body))

    def missed(
        self, resource: Resource, namespace: str, listed: Iterable[Mapping[str, Any]], parents: Parents
    ) -> Iterator[Wake]:
        """Whom a list of metadata of *namespace* ("" for all) wakes: what is new, other, gone, or does not rest.

        *parents* says whom an object wakes that no watch showed.
        """
        left = dict(self._sights.get(resource, {}))
        for item in listed:
            metadata = item["metadata"]
            sight = left.pop(Key(metadata["namespace"], metadata["name"]), None)
            if sight is None:
                yield from parents(resource, item)
            elif sight.version != metadata["resourceVersion"]:
                yield from sight.wakes
            elif not sight.rests:
                yield from (wake for wake in sight.wakes if wake[0] == resource)
        yield from (wake for key, each in left.items() if namespace in ("", key.namespace) for wake in each.wakes)


def rests(resource: Resource, body: Mapping[str, Any]) -> bool:
    """Whether nothing follows from the object as it is: it waits for no engine, no claim and no pod."""
    status = body.get("status", {})
    decided = status.get("observedGeneration") == body["metadata"].get("generation")
    return resource in (FINETUNEJOBS, QUANTIZEJOBS) and decided and status.get("phase") in RESTING


@dataclass(frozen=True, slots=True)
class Resync:
    """What a resync is made of."""

    cluster: Cluster
    seen: Seen
    namespaces: Sequence[str]
    kinds: Mapping[Resource, Mapping[str, str] | None]
    """All that is watched, each with the labels that the watch selects by."""
    parents: Parents
    wake: Callable[[Resource, Key], None]

    async def run(self, seconds: float) -> None:
        """Every *seconds*, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.once()

    async def once(self) -> None:
        """Compare all; a kind that cannot be listed is left for the next time."""
        for resource, labels in self.kinds.items():
            for namespace in self.namespaces:
                try:
                    listed = await self.cluster.list_metadata(resource, namespace, labels=labels)
                except ClusterError as exc:
                    log.warning("resync of %s: %s", resource.plural, exc)
                    continue
                for kind, key in set(self.seen.missed(resource, namespace, listed, self.parents)):
                    self.wake(kind, key)
