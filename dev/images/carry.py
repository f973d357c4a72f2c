"""
Carry images out of the store: into the cluster, only the layers that it lacks, or to a registry.

Buildah can write an image to a folder, one file for each layer, and leaves out a layer whose file is there already.
So a file with the right name and size, but without content, stands for each layer that the cluster has. Nothing is
compressed: that would take longer than all the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dev import cluster
from dev.images import catalog, storage
from dev.images.builder import references
from dev.steps import StepError, step

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
            layers = present[reference].manifest()["layers"]
            known = cluster.content_digests()
            lacking = [layer for layer in layers if layer["digest"] not in known]
            size = sum(layer["size"] for layer in lacking)
            with step(f"load {reference}: {len(lacking)} of {len(layers)} layers, {size / 1e6:,.1f} MB"):
                _carry(reference, layers, known)


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
            remedy = f"see whether you may write there: buildah login {registry.partition('/')[0]}"
            storage.buildah("push", built[image.name], f"docker://{target}", remedy=remedy)
        pushed[image.name] = target
    return pushed


def _carry(reference: str, layers: Sequence[dict[str, Any]], known: set[str]) -> None:
    with tempfile.TemporaryDirectory(dir=storage.SCRATCH, prefix="carry.") as folder:
        image = Path(folder, "image")
        image.mkdir()
        # Buildah writes into a folder that is not empty only where this says that the folder is one of its own.
        (image / "version").write_text("Directory Transport Version: 1.1\n")
        for layer in layers:
            if layer["digest"] in known:
                blob = image / _hex(layer["digest"])
                blob.touch()
                os.truncate(blob, layer["size"])
        storage.buildah("push", "--quiet", "--disable-compression", reference, f"dir:{image}")
        archive = Path(folder, "image.tar")
        write_archive(image, reference, known, archive)
        cluster.import_archive(archive)


def write_archive(image: Path, reference: str, known: set[str], archive: Path) -> None:
    """
    Write the OCI archive of the folder *image* without the layers in *known*.

    Each layer's file is gone once it is in the archive, so that the disk never holds all of them twice.
    """
    manifest = (image / "manifest.json").read_bytes()
    content = json.loads(manifest)
    described = {
        "mediaType": content["mediaType"],
        "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        "size": len(manifest),
        "annotations": {"io.containerd.image.name": reference},
    }
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        _add(tar, _blob(described["digest"]), manifest)
        for digest in _digests(content):
            if digest not in known:
                path = image / _hex(digest)
                tar.add(path, _blob(digest), recursive=False)
                path.unlink()


def _digests(manifest: dict[str, Any]) -> Iterator[str]:
    """Of the configuration and the layers; a layer that comes twice (an empty one) is one blob."""
    yield from dict.fromkeys([manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])])


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _blob(digest: str) -> str:
    return f"blobs/sha256/{_hex(digest)}"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
