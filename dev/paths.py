"""Where the project keeps what it builds: outside the checkout, keyed by version, so that clones share it."""

from __future__ import annotations

import os
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("LARGEFORGE_CACHE", "~/.cache/largeforge")).expanduser()
"""Programs, the image store and the cluster's state; `LARGEFORGE_CACHE` overrides."""

PROGRAMS = CACHE / "programs"
STORAGE = CACHE / "storage"
CLUSTER = CACHE / "cluster"
KUBECONFIG = CLUSTER / "kubeconfig"
