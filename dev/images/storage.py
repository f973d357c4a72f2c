"""The image store: buildah, with a configuration of ours, in the cache folder."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dev.images.context import EPOCH
from dev.packages import ensure_packages
from dev.paths import CACHE, STORAGE
from dev.steps import StepError, run

SCRATCH = CACHE / "tmp"
"""For contexts, archives and pip's downloads: the system's own folder for temporary files may be small or in memory."""

DAMAGED_REMEDY = "the image store is damaged: remove it (make clean) and build again"

_GRAPH = STORAGE / "root"
_IMAGES = _GRAPH / "overlay-images"
_LAYERS = _GRAPH / "overlay-layers"
_CHUNK = 1 << 20
_SEGMENT = 2
"""In the archive of a layer: bytes, not a file."""

_BUILD_REMEDY = "see the message above; `python -m dev.images build` goes on where it stopped"
_PIP_SETTINGS = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "timeout",
    "default-timeout",
    "retries",
    "cert",
)


@dataclass(frozen=True)
class Stored:
    """An image in the store."""

    id: str
    names: tuple[str, ...]
    made: float
    """When its last tag came, in seconds."""

    def manifest(self) -> bytes:
        """Its OCI manifest; the layers in it are not compressed."""
        return (_IMAGES / self.id / "manifest").read_bytes()

    def layers(self) -> dict[str, int]:
        """Digest → size of its layers."""
        return {layer["digest"]: layer["size"] for layer in json.loads(self.manifest())["layers"]}

    def config(self) -> bytes:
        """Its OCI configuration, whose digest is the image's id."""
        name = base64.b64encode(f"sha256:{self.id}".encode()).decode()
        return (_IMAGES / self.id / f"={name}").read_bytes()


def stored() -> dict[str, Stored]:
    """Reference → image, read from the store's own list: this takes a millisecond and starts no program."""
    try:
        listed = json.loads((_IMAGES / "images.json").read_text() or "[]")
    except FileNotFoundError:
        return {}
    found = {}
    for entry in listed:
        names = tuple(entry.get("names") or ())
        made = (_IMAGES / entry["id"]).stat().st_mtime
        found.update({name: Stored(entry["id"], names, made) for name in names})
    return found


def layer(digest: str) -> Iterator[bytes]:
    """
    The tar archive of the layer *digest*, byte by byte as it was when it came.

    The store keeps a layer's files unpacked, and all else of its archive (headers, padding) in a file beside: JSON
    lines with either such bytes or the name and size of a file that follows.
    """
    folder, rest = _layer_files(digest)
    with gzip.open(rest, "rt") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["type"] == _SEGMENT:
                yield base64.b64decode(entry["payload"])
            elif entry.get("size"):
                name = base64.b64decode(entry["name_raw"]).decode() if "name_raw" in entry else entry["name"]
                with (folder / name).open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        yield chunk


def _layer_files(digest: str) -> tuple[Path, Path]:
    for entry in json.loads((_LAYERS / "layers.json").read_text()):
        rest = _LAYERS / f"{entry['id']}.tar-split.gz"
        if entry.get("diff-digest") == digest and rest.is_file():
            return _GRAPH / "overlay" / entry["id"] / "diff", rest
    raise StepError(f"the layer {digest} is not in {STORAGE}", remedy=DAMAGED_REMEDY)


def require_buildah() -> None:
    """Buildah from the distribution, if it is not here yet."""
    if shutil.which("buildah") is None:
        ensure_packages(["buildah"])


def buildah(*arguments: str | Path, remedy: str = _BUILD_REMEDY) -> str:
    """Run buildah on our store."""
    return run("buildah", *arguments, env=environment(), remedy=remedy)


def environment() -> dict[str, str]:
    """The process environment with our store and our folder for temporary files."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(_configuration()), "TMPDIR": str(SCRATCH)}


def build_image(
    reference: str, *, dockerfile: Path, context: Path, base: str | None, toolchain: str | None = None
) -> None:
    """
    Build *dockerfile* and call the result *reference*; layers that did not change are taken from the store.

    No network device, no user namespace and no cgroup are asked for: this works inside most containers too.
    """
    arguments = ["--isolation", "chroot", "--network", "host", "--layers", "--timestamp", str(EPOCH)]
    if base is not None:
        arguments += ["--build-arg", f"BASE={base}"]
    if toolchain is not None:
        arguments += ["--build-arg", f"TOOLCHAIN={toolchain}"]
    with scratch("secrets") as folder:
        for name, path in _secrets(folder).items():
            arguments += ["--secret", f"id={name},src={path}"]
        buildah("build", *arguments, "--file", dockerfile, "--tag", reference, context)


def remove_leftovers() -> None:
    """Remove the containers and folders that a killed build left; call it where no other build can run."""
    containers = _GRAPH / "overlay-containers/containers.json"
    if containers.is_file() and json.loads(containers.read_text() or "[]"):
        buildah("rm", "--all")
    for folder in SCRATCH.glob("buildah[0-9]*"):
        shutil.rmtree(folder, ignore_errors=True)


def unmount() -> None:
    """Undo the mounts that a killed build left."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if Path(mount).is_relative_to(STORAGE):
            run("umount", mount, remedy=f"see what uses it: fuser --verbose --mount {mount}")


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A folder for temporary files; those of processes that were killed go away with the next one."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    for folder in SCRATCH.iterdir():
        owner = re.fullmatch(r"[a-z]+\.(\d+)\..*", folder.name)
        if owner and not Path("/proc", owner[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix=f"{purpose}.{os.getpid()}.") as name:
        yield Path(name)


def remove(references: list[str]) -> None:
    """Take *references* away, with all layers that no other image uses; those that a build left without a name too."""
    buildah("rmi", *references)
    buildah("rmi", "--prune")


@cache
def _configuration() -> Path:
    path = STORAGE / "storage.conf"
    # Runtime state is gone after a restart of the machine, as it must be.
    running = Path("/run/largeforge") / f"storage-{hashlib.sha256(str(STORAGE).encode()).hexdigest()[:8]}"
    content = "\n".join(
        [
            "[storage]",
            'driver = "overlay"',
            f'graphroot = "{_GRAPH}"',
            f'runroot = "{running}"',
            "[storage.options.overlay]",
            'skip_mount_home = "true"',  # no mount stays behind
            "",
        ]
    )
    if not path.is_file() or path.read_text() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return path


def _secrets(folder: Path) -> dict[str, Path]:
    """Name → file of what a build step may see and no layer keeps: this machine's pip settings and its CA."""
    settings = pip_settings(run(sys.executable, "-m", "pip", "config", "list"))
    authority = settings.pop("cert", None) or next(
        (
            os.environ[name]
            for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
            if os.environ.get(name)
        ),
        None,
    )
    secrets = {}
    if authority is not None:
        if not Path(authority).is_file():
            raise StepError(f"pip's CA file {authority} is not there", remedy="correct PIP_CERT or SSL_CERT_FILE")
        secrets["ca"] = Path(authority)
        settings["cert"] = "/run/secrets/ca"
    if settings:
        secrets["pip"] = folder / "pip.conf"
        secrets["pip"].write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return secrets


def pip_settings(listed: str) -> dict[str, str]:
    """From the output of `pip config list`, the settings that a build needs as well; the environment wins."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        if match := re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.+)", line):
            found[match[1]][match[2]] = str(ast.literal_eval(match[3])).replace("\n", "\n    ")
    settings = {**found["global"], **found["install"], **found[":env:"]}
    return {key: value for key, value in settings.items() if key in _PIP_SETTINGS}
