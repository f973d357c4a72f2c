"""An API server's keys, tokens signed with them, and a pod that may post its progress."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from largeforge.controllers.progresstokens import DISCOVERY, KEYS, BoundPod
from tests.unit.fakes import FakeCluster
from tests.unit.training import DIGEST, NOW, manifest

ISSUER = "https://kubernetes.default.svc.cluster.local"
JOB_NAME = "sql-r1-a1"
RUN = {"number": 1, "digest": DIGEST, "stage": "Training", "attempt": 1, "jobName": JOB_NAME}
POD = BoundPod("team", f"{JOB_NAME}-0-abcde", "uid-of-pod")


class Issuer:
    """Signs as an API server does."""

    def __init__(self, *, algorithm="RS256", key_id="key-1"):
        self.algorithm, self.key_id = algorithm, key_id
        self.key = (
            rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
        )

    def jwk(self):
        kind = jwt.algorithms.RSAAlgorithm if self.algorithm == "RS256" else jwt.algorithms.ECAlgorithm
        public = json.loads(kind.to_jwk(self.key.public_key()))
        return public | {"kid": self.key_id, "use": "sig", "alg": self.algorithm}

    def documents(self):
        return {DISCOVERY: {"issuer": ISSUER, "jwks_uri": "elsewhere"}, KEYS: {"keys": [self.jwk()]}}

    def token(self, pod=POD, *, age=0, life=3600, **claims):
        """A token of *pod*, made *age* seconds ago; *claims* are laid over the usual ones, None leaves one out."""
        made = int(time.time()) - age
        usual = {
            "iss": ISSUER,
            "aud": ["largeforge-progress"],
            "iat": made,
            "nbf": made,
            "exp": made + life,
            "sub": f"system:serviceaccount:{pod.namespace}:default",
            "kubernetes.io": {
                "namespace": pod.namespace,
                "pod": {"name": pod.name, "uid": pod.uid},
                "serviceaccount": {"name": "default", "uid": "uid-of-default"},
            },
        }
        body = {k: v for k, v in (usual | claims).items() if v is not None}
        return jwt.encode(body, self.key, algorithm=self.algorithm, headers={"kid": self.key_id})


def owner(api_version, kind, name, uid):
    return [{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": True}]


def batch_job(name=JOB_NAME, *, uid="uid-of-job", controller=None):
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid,
            "ownerReferences": controller or owner("largeforge.ai/v1alpha1", "FineTuneJob", "sql", "uid-of-sql"),
        },
    }


def trainer_pod(*, controller=None, phase="Running", **metadata):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD.name,
            "namespace": "team",
            "uid": POD.uid,
            "ownerReferences": controller or owner("batch/v1", "Job", JOB_NAME, "uid-of-job"),
        }
        | metadata,
        "status": {"phase": phase},
    }


def training_cluster(*, run=None, pod=None, job=None, **status):
    """A FineTuneJob whose first attempt trains in `POD`."""
    finetunejob = manifest() | {"status": {"run": RUN | (run or {})} | status}
    return FakeCluster(finetunejob, job or batch_job(), pod or trainer_pod())


class Clock:
    """A time that the test moves."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def now(self):
        return NOW + timedelta(seconds=int(self.seconds))


def post(step=120, total=400, *, loss="1.832", eta=720, **more):
    """A body as the reporter makes it."""
    values = {"current_step": step, "total_steps": total, "loss": loss} | more
    status = {
        "progressPercentage": max(0, min(100 * step // total, 100)),
        "estimatedRemainingSeconds": eta,
        "metrics": [{"name": name, "value": str(value)} for name, value in values.items()],
        "lastUpdatedTime": "2026-11-25T12:00:00Z",
    }
    return json.dumps({"trainerStatus": status}).encode()
