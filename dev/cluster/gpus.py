"""GPUs that are not there: the node advertises them, so that scheduling can be tested; no device is given to a pod.

Runs in the node for as long as it runs: the kubelet forgets such a resource when it starts again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from dev.cluster import layout
from dev.cluster.api import Api
from dev.cluster.layout import Layout

RESOURCE = "nvidia.com/gpu"
INTERVAL_SECONDS = 2.0
NODE_PATH = f"/api/v1/nodes/{layout.NODE}"


def gpu_patch(node: dict[str, Any], *, wanted: int) -> list[dict[str, Any]]:
    """What to change in the status of *node* so that it has *wanted* GPUs; empty when it has."""
    # The kubelet derives allocatable, which the scheduler reads, from capacity: but only at its next report.
    return [
        change
        for resources in ("capacity", "allocatable")
        for change in _change(node["status"].get(resources, {}), f"/status/{resources}/", wanted=wanted)
    ]


def _change(resources: dict[str, str], parent: str, *, wanted: int) -> list[dict[str, Any]]:
    path = parent + RESOURCE.replace("/", "~1")
    if resources.get(RESOURCE, "0") == str(wanted):
        return []
    return [{"op": "add", "path": path, "value": str(wanted)} if wanted else {"op": "remove", "path": path}]


def main() -> int:
    parser = argparse.ArgumentParser(description="Advertise fake GPUs; started by the node.")
    parser.add_argument("root", type=Path)
    paths = Layout(parser.parse_args().root)
    api = Api(paths)
    while True:
        try:
            wanted = int(paths.fake_gpus.read_text())
            patch = gpu_patch(api.call("GET", NODE_PATH), wanted=wanted)
            if patch:
                api.call("PATCH", f"{NODE_PATH}/status", patch, content="application/json-patch+json")
                print(f"{RESOURCE}: {wanted}", flush=True)
        except (OSError, ValueError) as error:
            print(f"tried again in {INTERVAL_SECONDS:g} s: {error}", flush=True)
        time.sleep(INTERVAL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
