"""Why a spec starts no run: the installation does not allow what it asks for, or its user wants no other run. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from largeforge.api.names import Reason
from largeforge.controllers.podstate import Problem
from largeforge.controllers.settings import Settings

SHOWN = 5
"""Names of fields in one message."""


def not_allowed(namespace: str, settings: Settings, *, remote_code: str | None, account: str | None) -> Problem | None:
    """What the chart does not allow in *namespace*.

    *remote_code* is the field that asks to run a model's own code, where one does; *account* the service account.
    """
    if remote_code is not None and namespace not in settings.remote_code_namespaces:
        return Problem(
            Reason.REMOTE_CODE_NOT_ALLOWED,
            f"{remote_code}: namespace {namespace!r} is not in the chart's training.remoteCodeNamespaces;"
            " remove the field, or have the namespace added",
        )
    if account not in (None, "default") and account not in settings.service_accounts:
        return Problem(
            Reason.SERVICE_ACCOUNT_NOT_ALLOWED,
            f"spec.serviceAccountName: {account!r} is not in the chart's training.serviceAccounts; remove the field, or"
            " have the account added",
        )
    return None


def rerun_refused(number: int, names: Sequence[str]) -> Problem:
    """The fields *names* changed since run *number* began, and the user wants that run's result."""
    return Problem(
        Reason.RERUN_REFUSED,
        f"{listed(names) or 'a field that decides the result'} changed since run {number} began, and"
        " spec.rerunPolicy is Never: that run and its result are kept; set rerunPolicy: OnSpecChange to start the next"
        " one, or change it back",
    )


def listed(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
