"""Images in the node's containerd: what is there, and how more of them come in.

`ctr` finds containerd through its socket's path, so all of this runs outside the node.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.cluster import programs
from dev.cluster.layout import Layout
from dev.paths import CLUSTER
from dev.steps import run

NAMESPACE = "k8s.io"
"""Where the kubelet looks."""

NOT_ROOT = "65535:65535"
BUSYBOX = Path("/bin/busybox")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
NAME_ANNOTATION = "io.containerd.image.name"


@dataclass(frozen=True, kw_only=True)
class SmallImage:
    """An image of one static binary."""

    reference: str
    binary: Path
    path: str
    """Of the binary, in the image, without the leading slash."""
    links: Sequence[str] = ()
    """Other paths that lead to it."""
    user: str = NOT_ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


def base_images() -> list[SmallImage]:
    """Those that the cluster itself needs."""
    applets = run(BUSYBOX, "--list").split()
    return [
        SmallImage(reference="localhost/pause:1", binary=programs.program("pause"), path="pause"),
        SmallImage(
            reference=f"localhost/coredns:{programs.ALL['coredns'].version}",
            binary=programs.program("coredns"),
            path="coredns",
        ),
        SmallImage(
            reference=f"localhost/local-path-provisioner:{programs.ALL['local-path-provisioner'].version}",
            binary=programs.program("local-path-provisioner"),
            path="local-path-provisioner",
        ),
        SmallImage(
            reference="localhost/busybox:1",
            binary=BUSYBOX,
            path="bin/busybox",
            links=[f"bin/{applet}" for applet in applets if applet != "busybox"],
            user="0:0",  # the provisioner's helper makes folders as root; other pods set runAsUser
            environment={"PATH": "/bin"},
        ),
    ]


def write_archive(images: Iterable[SmallImage], tar: Path) -> None:
    """Write *images* as one OCI layout; the same input gives the same bytes."""
    blobs: dict[str, bytes] = {}
    manifests = [_add_image(image, blobs) for image in images]
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
        **{f"blobs/sha256/{digest}": content for digest, content in blobs.items()},
    }
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            archive.addfile(_entry(name, size=len(content), mode=0o644), io.BytesIO(content))


def import_archive(tar: Path, *, paths: Layout | None = None) -> None:
    """Import an OCI archive and unpack it; a tag that exists is moved.

    Blobs that `content_digests` lists may be left out of the archive: containerd uses its own. (Tried: an archive
    without its lower layers, imported beside an image that has them, unpacks and runs; where a blob is in neither
    place, the import fails with «not found».) The names come from the annotation `io.containerd.image.name` of each
    manifest in `index.json`.
    """
    _ctr(paths, "images", "import", str(tar), remedy=f"see whether the cluster runs, and whether {tar} is whole")
    # The kubelet's collection is off, and what a moved tag leaves may be gigabytes. Running containers keep theirs.
    left = untagged(references(paths=paths))
    if left:
        _ctr(paths, "images", "remove", *left)


def content_digests(*, paths: Layout | None = None) -> set[str]:
    """`sha256:…` of every blob that containerd has whole."""
    return set(_ctr(paths, "content", "list", "--quiet").split())


def references(*, paths: Layout | None = None) -> dict[str, str]:
    """The names of all images in containerd, each with the `sha256:…` of its manifest."""
    return parse_image_list(_ctr(paths, "images", "list"))


def parse_image_list(text: str) -> dict[str, str]:
    """Name and digest of each line of `ctr images list`: REF TYPE DIGEST SIZE PLATFORMS LABELS."""
    return {fields[0]: fields[2] for line in text.splitlines()[1:] if len(fields := line.split()) > 2}


def untagged(found: Mapping[str, str]) -> list[str]:
    """Those of *found* that are named by a digest only, since their tag has moved on."""
    tagged = {digest for name, digest in found.items() if not name.startswith("sha256:")}
    return sorted(name for name, digest in found.items() if name.startswith("sha256:") and digest not in tagged)


def image_digest(reference: str, *, paths: Layout | None = None) -> str | None:
    """`sha256:…` of the manifest that *reference* leads to in containerd."""
    return references(paths=paths).get(reference)


def has_image(reference: str, *, paths: Layout | None = None) -> bool:
    """Whether a pod that names *reference* would find it."""
    return image_digest(reference, paths=paths) is not None


def _ctr(paths: Layout | None, *arguments: str, remedy: str = "") -> str:
    socket = (paths or Layout(CLUSTER)).containerd_socket
    return run(
        *(str(programs.program("ctr")), "--address", str(socket), "--namespace", NAMESPACE, *arguments),
        remedy=remedy or "see whether the cluster runs: python -m dev.cluster status",
    )


def _add_image(image: SmallImage, blobs: dict[str, bytes]) -> dict[str, Any]:
    layer = _layer(image)
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": [f"/{image.path}"],
            "User": image.user,
            "Env": [f"{name}={value}" for name, value in image.environment.items()],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(blobs, _json(config), CONFIG),
        "layers": [_blob(blobs, layer, LAYER)],
    }
    return {**_blob(blobs, _json(manifest), MANIFEST), "annotations": {NAME_ANNOTATION: image.reference}}


def _layer(image: SmallImage) -> bytes:
    content = image.binary.read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in sorted({str(parent) for parent in Path(image.path).parents} - {"."}):
            entry = _entry(folder, size=0, mode=0o755)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        tar.addfile(_entry(image.path, size=len(content), mode=0o755), io.BytesIO(content))
        for link in image.links:
            entry = _entry(link, size=0, mode=0o777)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"/{image.path}"
            tar.addfile(entry)
    return buffer.getvalue()


def _blob(blobs: dict[str, bytes], content: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    blobs[digest] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _entry(name: str, *, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)  # times and owners are 0: an image's digest depends on its content only
    entry.size, entry.mode = size, mode
    return entry


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
