"""Expert: resolved, fitting, loaded on every ready pod, proven to answer there; and nothing else called by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from largeforge.api.expert import Expert, Resolved
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.keys import engine_key
from largeforge.api.meta import Condition, ObjectMeta
from largeforge.api.names import COMPATIBLE, INFERENCESERVICE_LABEL, Reason
from largeforge.controllers.context import Context
from largeforge.controllers.engine import Call, Trouble, list_models
from largeforge.controllers.enginepods import engine_pods
from largeforge.controllers.expertplacement import Observed, Placing
from largeforge.controllers.expertrules import mismatch, resolve, without_slot
from largeforge.controllers.keys import namespace_key
from largeforge.controllers.namesakes import taken
from largeforge.controllers.plan import M, Plan, read, report_unreadable
from largeforge.controllers.podstate import Problem
from largeforge.controllers.rounds import AGAIN_SECONDS, Decision, carry_out
from largeforge.controllers.workqueue import Key
from largeforge.kube.cluster import EXPERTS, FINETUNEJOBS, INFERENCESERVICES, PODS, Cluster, Resource
from largeforge.resources.names import adapter_owner
