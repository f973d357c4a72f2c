"""
Carry images out of the store: into the cluster, only the layers that it lacks, or to a registry.

`buildah push` writes all layers each time, and compresses them. Here, those that the cluster lacks go straight from the
store into the archive.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from dev import cluster
from dev.images import catalog, storage
from dev.images.builder import references
from dev.images.storage import Stored
from dev.paths import CLUSTER
from dev.steps import StepError, run, step

_INDEX = "application/vnd.oci.image.index.v1+json"


def load(wanted: Iterable[str] | None = None) -> None:
    """Make the cluster have the images of the references *wanted*, or all that were built last."""
    present = storage.stored()
    for reference in references().values() if wanted is None else wanted:
        if cluster.has_image(reference):
            print(f"    {reference} is in the cluster")
        elif reference not in present:
            raise StepError(f"{reference} is not built", remedy="run: python -m dev.images build")
        else:
            image = present[reference]
            layers = image.layers()
            known = cluster.content_digests()
            lacking = layers.keys() - known
            size = sum(layers[digest] for digest in lacking)
            with step(f"load {reference}: {len(lacking)} of {len(layers)} layers, {size / 1e6:,.1f} MB"):
                _carry(image, reference, known)
    forget_old()


def forget_old() -> None:
    """
    Remove from the cluster our images that left the store, unless a container there was made from them.

    Only from the local one: what another holds is not ours to remove.
    """
    from dev.cluster import images, local
    from dev.cluster.layout import Layout
    from dev.cluster.programs import program

    if cluster.chosen() is not local or not cluster.status()["running"]:
        return
    ctr = [str(program("ctr")), "--address", str(Layout(CLUSTER).containerd_socket), "--namespace", images.NAMESPACE]
    there = images.references()
    used = {line.split()[1] for line in run(*ctr, "containers", "list").splitlines()[1:]}
    old = superseded(there, keep={*used, *storage.stored()})
    if old:
        with step(f"remove {len(old)} old names from the cluster"):
            run(*ctr, "images", "remove", *old)


def superseded(there: Mapping[str, str], *, keep: set[str]) -> list[str]:
    """The names of ours in *there* (name → digest) that are not in *keep*, with the kubelet's own names for them."""
    old = {name for name in there if name.startswith(f"{catalog.REPOSITORY}-") and name not in keep}
    named = {digest for name, digest in there.items() if not name.startswith("sha256:") and name not in old}
    lost = {there[name] for name in old} - named
    return sorted(old | {name for name, digest in there.items() if name.startswith("sha256:") and digest in lost})


def push(registry: str, names: Sequence[str] = ()) -> dict[str, str]:
    """
    Copy the images called *names* (all when there is none) to *registry*; name → reference there.

    Credentials are those of `buildah login`, or of `docker login`.
    """
    if not registry or registry.startswith("-"):
        raise StepError("no registry was named", remedy="run: make push REGISTRY=registry.example/team")
    built = references()
    pushed = {}
    for image in catalog.select(names):
        if image.name not in built:
            raise StepError(f"{image.name} is not built", remedy=f"run: python -m dev.images build {image.name}")
        tag = built[image.name].rpartition(":")[2]
        target = f"{registry.rstrip('/')}/largeforge-{image.name}:{tag}"
        with step(f"push {target}"):
            remedy = (
                f"see whether it answers, and whether you may write there: buildah login {registry.partition('/')[0]}"
            )
            storage.buildah("push", "--quiet", built[image.name], f"docker://{target}", remedy=remedy)
        pushed[image.name] = target
    return pushed


def _carry(image: Stored, reference: str, known: set[str]) -> None:
    with storage.scratch("carry") as folder:
        archive = folder / "image.tar"
        with archive.open("wb") as out:
            write_archive(image, reference, known, out)
        cluster.import_archive(archive)


def write_archive(image: Stored, reference: str, known: set[str], out: BinaryIO) -> None:
    """Write *image* as an OCI archive called *reference*, without the blobs in *known*."""
    manifest = image.manifest()
    content = json.loads(manifest)
    described = {
        "mediaType": content["mediaType"],
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": reference},
    }
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    _add(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    _add(out, "index.json", json.dumps(index).encode())
    _add_blob(out, described, [manifest])
    _add_blob(out, content["config"], [image.config()])
    # A layer that comes twice (an empty one) is one blob.
    for layer in {layer["digest"]: layer for layer in content["layers"]}.values():
        if layer["digest"] not in known:
            _add_blob(out, layer, storage.layer(layer["digest"]))
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def _add_blob(out: BinaryIO, described: Mapping[str, Any], chunks: Iterable[bytes]) -> None:
    _header(out, f"blobs/sha256/{described['digest'].removeprefix('sha256:')}", described["size"])
    written = 0
    for chunk in chunks:
        out.write(chunk)
        written += len(chunk)
    if written != described["size"]:
        raise StepError(
            f"{described['digest']} has {written} bytes, not {described['size']}", remedy=storage.DAMAGED_REMEDY
        )
    out.write(bytes(-written % tarfile.BLOCKSIZE))


def _add(out: BinaryIO, name: str, content: bytes) -> None:
    _header(out, name, len(content))
    out.write(content)
    out.write(bytes(-len(content) % tarfile.BLOCKSIZE))


def _header(out: BinaryIO, name: str, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    out.write(entry.tobuf())
