"""The Expert of a run that its gate has let out, or was to judge: what is applied, and what is said of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from largeforge.api.finetunejob import PublishedExpert
from largeforge.api.meta import Condition
from largeforge.api.names import PUBLISHED, Reason
from largeforge.controllers.phases import no, yes
from largeforge.kube.cluster import Manifest
from largeforge.resources.publishing import Publisher, Publishing, is_published_by, missing_of, published_expert

NAME_SECONDS = 60.0
"""How often a name that somebody else holds is looked at, and what the API server refused."""


@dataclass(frozen=True, slots=True)
class Publication:
    """How far it is."""

    said: Condition
    """`Published`."""
    complete: bool = True
    """Whether nothing is waited for: the Expert is there and ours, or there shall be none."""
    publish: Sequence[Manifest] = ()
    again_after: float | None = None


def publication(
    job: Publisher,
    wish: PublishedExpert | None,
    expert: Manifest | None,
    *,
    how: Publishing,
    withheld: Condition | None,
) -> Publication:
    """What to do for the Expert that *job* wishes, where *expert* is what is there of its name.

    *withheld* is why the gate would not let the result out now. It takes no Expert down, but none is made.
    """
    if wish is None:
        return Publication(no(PUBLISHED, Reason.NOT_REQUESTED, "spec.publish is not set"))
    name = wish.name
    if expert is not None and not is_published_by(expert, job, how=how):
        message = f"spec.publish.expert.name: Expert {name!r} is another one's; choose another name, or delete it"
        return Publication(no(PUBLISHED, Reason.NAME_TAKEN, message), complete=False, again_after=NAME_SECONDS)
    desired = published_expert(job, wish, how=how)
    if expert is not None:
        lacking = missing_of(desired, expert)
        said = yes(PUBLISHED, Reason.PUBLISHED, f"Expert {name!r}")
        return Publication(said, publish=[] if lacking is None else [lacking])
    if withheld is not None:
        message = f"Expert {name!r} is not made: {withheld.message}"
        return Publication(no(PUBLISHED, withheld.reason, message))
    said = no(PUBLISHED, Reason.PENDING, f"Expert {name!r} is being made")
    return Publication(said, complete=False, publish=[desired], again_after=1)
