"""Which of the run's processes this one is, as torchrun says it in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from largeforge.jobs.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process and how many there are."""

    rank: int
    world: int

    @property
    def first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0


def from_environment(environment: Mapping[str, str], *, expected: int) -> Ranks:
    """Read `RANK` and `WORLD_SIZE`; another number than *expected* would train with another batch, so it fails."""
    world = int(environment.get("WORLD_SIZE", "1"))
    if world != expected:
        raise InvalidConfigError(
            f"{expected} processes must take part (got {world}); PET_NPROC_PER_NODE and the run configuration differ",
            field="spec.compute",
        )
    return Ranks(int(environment.get("RANK", "0")), world)
