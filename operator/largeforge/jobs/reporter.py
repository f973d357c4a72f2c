"""Tells the operator how far training is: a thread of its own, so that no step waits for a network.

The wire format is Kubeflow's (`trainerStatus`), the metric names those of transformers' own `KubeflowCallback` and a
few more. Everything may be lost: what is posted is for people who look, the result goes another way.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from largeforge.api.run import CONFIG_DIR, PROGRESS_CA_FILE, PROGRESS_TOKEN_FILE, PROGRESS_URL

log = logging.getLogger(__name__)

PERIOD_SECONDS = 5.0
"""Between two posts; the operator writes status less often still."""
POST_SECONDS = 5.0
"""How long one post may take."""
CLOSE_SECONDS = 2.0
"""How long the end of training waits for the last post."""
TROUBLE_SECONDS = 60.0
"""Between two lines about posts that fail."""

Post = Callable[[bytes], None]
"""Sends one body; an `OSError`, `ValueError` or `HTTPException` says that it did not arrive."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the work is after a step: of a training, a block of a model, a window of text."""

    step: int
    total_steps: int
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    """Of all ranks."""
    eta_seconds: float | None = None
    """By the speed of the newest steps."""
    eval_loss: float | None = None
    """The newest held-out loss."""
    checkpoint_step: int | None = None
    """The step of the newest complete checkpoint."""

    @property
    def last(self) -> bool:
        """Whether no step follows."""
        return self.step >= self.total_steps

    def body(self, *, now: datetime) -> bytes:
        """The JSON that is posted; values that are no numbers are left out."""
        named: dict[str, float | None] = {
            "current_step": self.step,
            "total_steps": self.total_steps,
            "current_epoch": self.epoch,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "tokens_per_second": self.tokens_per_second,
            "eval_loss": self.eval_loss,
            "checkpoint_step": self.checkpoint_step,
        }
        status: dict[str, object] = {
            "progressPercentage": min(100 * self.step // max(self.total_steps, 1), 100),
            "metrics": [
                {"name": name, "value": f"{value:.10g}"}
                for name, value in named.items()
                if value is not None and math.isfinite(value)
            ],
            "lastUpdatedTime": now.isoformat(timespec="microseconds"),
        }
        if self.eta_seconds is not None and math.isfinite(self.eta_seconds):
            status["estimatedRemainingSeconds"] = max(0, round(self.eta_seconds))
        return json.dumps({"trainerStatus": status}).encode()


@dataclass(slots=True)
class Reporter:
    """Posts the newest snapshot: the first at once, then one in `period` seconds, and the last at once.

    One without `post` does nothing: that is a rank which does not speak, or a run that nobody listens to.
    """

    post: Post | None = None
    period: float = PERIOD_SECONDS
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _waiting: tuple[Snapshot, datetime] | None = None
    _closing: bool = False
    _thread: threading.Thread | None = None
    _trouble_at: float = -math.inf

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        ca_file: Path = Path(CONFIG_DIR) / PROGRESS_CA_FILE,
        token_file: Path = Path(PROGRESS_TOKEN_FILE),
    ) -> Reporter:
        """One that posts to `LARGEFORGE_PROGRESS_URL`; one that does nothing where that is not set."""
        url = environ.get(PROGRESS_URL)
        return cls(https_post(url, ca_file=ca_file, token_file=token_file)) if url else cls()

    def update(self, snapshot: Snapshot) -> None:
        """Let *snapshot* be posted, unless a newer one comes before its time. Never blocks, never raises."""
        if self.post is None:
            return
        with self._changed:
            if self._closing:
                return
            self._waiting = (snapshot, datetime.now(UTC))
            if self._thread is None:
                # A daemon: a process that ends does not wait for an operator that hangs.
                self._thread = threading.Thread(target=self._run, args=(self.post,), name="progress", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Post what waits, in `CLOSE_SECONDS` at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def _run(self, post: Post) -> None:
        due = -math.inf
        while (taken := self._take(due)) is not None:
            snapshot, moment = taken
            due = time.monotonic() + self.period
            try:
                post(snapshot.body(now=moment))
            except (OSError, ValueError, http.client.HTTPException) as exc:
                self._say(exc)

    def _take(self, due: float) -> tuple[Snapshot, datetime] | None:
        """The newest snapshot, once it is *due*, the last one or the end has come; None at the end."""
        with self._changed:
            while True:
                waiting, now = self._waiting, time.monotonic()
                if waiting is not None and (self._closing or now >= due or waiting[0].last):
                    self._waiting = None
                    return waiting
                if self._closing:
                    return None
                self._changed.wait(due - now if waiting is not None else None)

    def _say(self, trouble: Exception) -> None:
        now = time.monotonic()
        if now - self._trouble_at >= TROUBLE_SECONDS:
            self._trouble_at = now
            log.warning("progress was not posted: %s; training goes on, status is late", trouble)


def https_post(url: str, *, ca_file: Path, token_file: Path) -> Post:
    """A `Post` to *url*, which must be https, trusting the CA of *ca_file* alone, with the token of *token_file*.

    Both files are read anew for each post: the kubelet renews the token.
    """
    target = urlsplit(url)

    def post(body: bytes) -> None:
        if target.scheme != "https":
            raise ValueError(f"{PROGRESS_URL} must begin with https:// (got {url!r})")
        context = ssl.create_default_context(cafile=str(ca_file))
        headers = {"Authorization": f"Bearer {token_file.read_text().strip()}", "Content-Type": "application/json"}
        # Not urllib: a proxy or a redirect would be shown the token.
        connection = http.client.HTTPSConnection(
            target.hostname or "", target.port, timeout=POST_SECONDS, context=context
        )
        try:
            connection.request("POST", target.path or "/", body=body, headers=headers)
            answer = connection.getresponse()
            said = answer.read(256).decode(errors="replace").strip()
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{target.hostname} answered {answer.status}: {said}")

    return post
