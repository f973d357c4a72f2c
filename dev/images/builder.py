"""Build what is missing, and forget what is old."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dev.images import catalog, storage
from dev.images.catalog import BASE, TOOLCHAIN, Image
from dev.images.context import EPOCH, add_site, snapshot
from dev.packages import ensure_packages
from dev.paths import CACHE, REPO, STORAGE
from dev.steps import StepError, run, step

RECORD = CACHE / "images.json"
LARGE = 1_000_000_000
"""A tag before the newest stays only while its own layers have fewer bytes than this."""

UNFINISHED = STORAGE / "unfinished"
"""Is there while a build runs, and after one that was killed."""

DISK = 45_000_000_000
"""What the project may use: programs, images here, images in the cluster, the cluster's state."""

CHANGE = 3_000_000_000
"""For changed layers, here and in the cluster."""

KEEP = 2
"""Tags of each image that stay: the newest, and the one before it, which may still run."""


def build(names: Sequence[str] = ()) -> dict[str, str]:
    """
    Make the images called *names* (all when there is none) be in the store; name → reference.

    A tag is a digest of all that goes in, so whether an image is there needs no look at it: without a change, this
    takes a fraction of a second and starts no program.
    """
    chosen = catalog.select(names)
    with storage.scratch("context") as context:
        snapshot(REPO, context)
        wanted = catalog.references(context)
        missing = [image for image in chosen if wanted[image.name] not in storage.stored()]
        for image in chosen:
            if image not in missing:
                print(f"    {wanted[image.name]} is built")
        if missing:
            with _alone():
                _build(missing, wanted, context)
    made = {image.name: wanted[image.name] for image in chosen}
    _record(made)
    if missing:
        prune()
    return made


def references() -> dict[str, str]:
    """Name → reference of the images that were built last."""
    try:
        found: dict[str, str] = json.loads(RECORD.read_text())
    except FileNotFoundError as error:
        raise StepError("no image has been built yet", remedy="run: make images") from error
    return found


def check_disk(images: Sequence[Image] = tuple(catalog.IMAGES.values())) -> None:
    """
    Refuse to begin on *images* when the disk cannot take them.

    A large one that was never built asks for `DISK`, less what the cache folder holds already; all else for the room
    of changed layers.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free
    known = {reference.rpartition(":")[0] for reference in storage.stored()}
    if all(image.gigabytes < 1 or catalog.reference(image.name, "").rstrip(":") in known for image in images):
        needed = CHANGE
    elif free >= DISK:
        return
    else:
        needed = max(DISK - disk_used(), CHANGE)
    if free < needed:
        raise StepError(
            f"{CACHE} has {free / 1e9:.0f} GB left, and {needed / 1e9:.0f} GB are needed",
            remedy="free some, or set LARGEFORGE_CACHE to a folder on a larger disk; `make clean` removes all of ours",
        )


def export(folder: Path) -> None:
    """Write the context of a build, for tools that are not ours, to *folder*."""
    if folder.exists():
        raise StepError(f"{folder} exists", remedy="name a folder that does not exist yet")
    with storage.scratch("context") as context:
        snapshot(REPO, context)
        add_site(context)
        shutil.copytree(context, folder)


def release() -> None:
    """Undo what a killed build left mounted; without it the cache folder could not be removed."""
    if STORAGE.is_dir():
        with _alone():
            storage.unmount()


def disk_used() -> int:
    """Bytes that the cache folder takes on its file system, mounts inside it left out."""
    done = run("du", "--summarize", "--one-file-system", "--block-size=1", CACHE)
    return int(done.split()[0])


def prune(keep: int = KEEP) -> None:
    """Remove all but the *keep* newest tags of each image from the store, and layers that nothing uses any more."""
    with _alone():  # what is looked at may be removed by a build of another checkout otherwise
        stored = storage.stored()
        old = outdated(stored, current=set(_recorded().values()), keep=keep)
        old += too_large(
            {reference: stored[reference].layers() for reference in stored if reference not in old}, _recorded()
        )
        if old:
            storage.remove_leftovers()  # a build that was killed holds the image that it began with
            with step(f"remove {len(old)} old image{'s' if len(old) > 1 else ''}"):
                storage.remove(old)


def outdated(stored: Mapping[str, storage.Stored], *, current: set[str], keep: int) -> list[str]:
    """The references of ours that are neither *current* nor among the *keep* newest of their image."""
    ours: dict[str, list[str]] = {}
    newest_first = sorted(stored, key=lambda reference: (reference in current, stored[reference].made), reverse=True)
    for reference in newest_first:
        if reference.startswith(f"{catalog.REPOSITORY}-"):
            ours.setdefault(reference.rpartition(":")[0], []).append(reference)
    return sorted(reference for references in ours.values() for reference in references[keep:])


def too_large(layers: Mapping[str, Mapping[str, int]], current: Mapping[str, str]) -> list[str]:
    """
    Those of *layers* (reference → digest → size) whose image is *current* at another tag, and that cost much room.

    After a change of torch or vLLM the tag before shares little with the new one, and two of both would fill the disk.
    """
    shared = {digest for reference in current.values() for digest in layers.get(reference, {})}
    old = []
    for reference, sizes in layers.items():
        name = reference.rpartition(":")[0].removeprefix(f"{catalog.REPOSITORY}-")
        alone = sum(size for digest, size in sizes.items() if digest not in shared)
        if current.get(name, reference) != reference and alone > LARGE:
            old.append(reference)
    return sorted(old)


def _build(missing: Sequence[Image], wanted: Mapping[str, str], context: Path) -> None:
    present = storage.stored()  # someone else may have built them while we waited
    missing = [image for image in missing if wanted[image.name] not in present]
    if not missing:
        return
    check_disk(missing)
    storage.require_buildah()
    if UNFINISHED.exists():
        storage.remove_leftovers()
    UNFINISHED.touch()
    try:
        _build_each(missing, wanted, context)
    except StepError:
        UNFINISHED.unlink()  # buildah itself has put away what it had begun
        raise
    UNFINISHED.unlink()


def _build_each(missing: Sequence[Image], wanted: Mapping[str, str], context: Path) -> None:
    systems = [BASE, *([TOOLCHAIN] if any(image.compiled for image in missing) else [])]
    for system in systems:
        if wanted[system.name] not in storage.stored():
            with step(f"build {wanted[system.name]} from Debian packages"):
                _build_system(system, wanted[system.name], context)
    if any(image.carries_package for image in missing):
        add_site(context)
    for image in missing:
        with step(f"build {wanted[image.name]}"):
            storage.build_image(
                wanted[image.name],
                dockerfile=context / image.dockerfile,
                context=context,
                base=wanted[BASE.name],
                toolchain=wanted[TOOLCHAIN.name] if image.compiled else None,
            )


def _build_system(image: Image, reference: str, context: Path) -> None:
    ensure_packages(["mmdebstrap", "debian-archive-keyring"])
    with storage.scratch("base") as folder:
        run(
            *("mmdebstrap", "--variant=minbase", "--quiet"),
            f"--include={','.join(packages((context / image.folder / 'packages.txt').read_text()))}",
            *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            # No program gives rights that its caller lacks.
            '--customize-hook=find "$1" -xdev -type f -perm /6000 -exec chmod a-s {} +',
            *("bookworm", folder / "rootfs.tar"),
            env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": str(folder)},
            remedy="see whether the network and the sources of apt work: apt-get update",
        )
        shutil.copy(context / image.dockerfile, folder)
        storage.build_image(reference, dockerfile=folder / "Dockerfile", context=folder, base=None)


def packages(listed: str) -> list[str]:
    """The names in a file of one name a line, with `#` before what is for people."""
    return [line.strip() for line in listed.splitlines() if line.strip() and not line.startswith("#")]


def _recorded() -> dict[str, str]:
    return references() if RECORD.is_file() else {}


def _record(made: Mapping[str, str]) -> None:
    content = json.dumps({**_recorded(), **made}, indent=2) + "\n"
    fresh = RECORD.with_suffix(f".{os.getpid()}")
    fresh.write_text(content)
    fresh.replace(RECORD)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two builds at once would make the same layers twice: the second waits."""
    STORAGE.mkdir(parents=True, exist_ok=True)
    with (STORAGE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
