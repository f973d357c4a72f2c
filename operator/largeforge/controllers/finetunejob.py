"""FineTuneJob: runs, their attempts, and the Expert that is made of a complete one.

What a run and an attempt are is told in `docs/finetunejob.md`. Numbers are written into status in one pass and acted
on in the next: whatever is killed in between, no number is used for two different things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from largeforge.api.digest import run_digest
from largeforge.api.finetunejob import FineTuneJob, FineTuneJobStatus, RunRecord
from largeforge.api.names import ATTEMPT_LABEL, FINETUNEJOB_LABEL, RUN_LABEL
from largeforge.controllers.attempts import ending, pause_before
from largeforge.controllers.context import Context
from largeforge.controllers.finetunejobstatus import (
    attempt_failed,
    first_status,
    held_up,
    published,
    refused,
    run_failed,
    run_succeeded,
    running,
    started,
    storage_missing,
    suspended,
    waiting_for_next,
)
from largeforge.controllers.plan import Deletion, Event, Plan, execute, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.settings import Settings
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import (
    CONFIGMAPS,
    EXPERTS,
    FINETUNEJOBS,
    JOBS,
    PERSISTENTVOLUMECLAIMS,
    PODS,
    Cluster,
    Invalid,
    Manifest,
)
