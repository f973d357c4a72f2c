"""What this router tells the operator of the experts: `RouterReport`, put together when it is asked for.

Each part is known by its maker, who is asked with an Expert's name and `metadata.generation` and says None until it
knows that generation. Makers set themselves here when they start.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

from largeforge.api.routerreport import ExpertReport, ProbeReport, RouterReport, RoutingReport

MOST_EXPERTS = 1024

RoutingReports = Callable[[str, int], RoutingReport | None]
"""How well the examples of one generation of an Expert tell it from the others."""
ProbeReports = Callable[[str, int], ProbeReport | None]
"""How the endpoint of one generation of an External Expert answered."""


def _unknown(name: str, generation: int) -> None:  # noqa: ARG001 - whoever is asked says None for what it does not know
    return None


class Reports:
    """The report of now, for whoever has the token."""

    def __init__(self, token: str, generations: Callable[[], Mapping[str, int]]) -> None:
        self._expected = f"Bearer {token}".encode()
        self._generations = generations
        self.routing: RoutingReports = _unknown
        self.probes: ProbeReports = _unknown

    def may_read(self, authorization: str) -> bool:
        """Whether that header's value has the token; takes as long for a wrong one as for the right one."""
        scheme, _, token = authorization.partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}".encode(errors="surrogateescape")
        return hmac.compare_digest(given, self._expected)

    def now(self) -> RouterReport:
        """What is known of each Expert of the table."""
        return RouterReport(
            experts=[
                ExpertReport(
                    name=name,
                    generation=generation,
                    routing=self.routing(name, generation),
                    probe=self.probes(name, generation),
                )
                for name, generation in sorted(self._generations().items())[:MOST_EXPERTS]
            ]
        )
