"""A folder of an artifact removed, if what lies there is still what is meant; at once for everybody who looks."""

from __future__ import annotations

import os
import shutil

from largeforge.jobs import artifact, weights
from largeforge.jobs.artifacterrors import DigestDiffersError, NotAModelError, SymlinkRefusedError
from largeforge.jobs.delivery import Target
from largeforge.jobs.folders import Folder, tree
from largeforge.jobs.modelfacts import chosen_weights


def remove(target: Target, *, digest: str, field: str) -> bool:
    """Remove the folder; False where it was gone already. A link in it is refused, and never followed."""
    going = target.store / f".{target.name}.removed"
    with target.writing():
        if going.is_dir() and not going.is_symlink():
            shutil.rmtree(going)
        if not os.path.lexists(target.path):
            return False
    folder = Folder(target.path, target.uri, field, NotAModelError)
    if target.path.is_symlink():
        raise folder.wrong("is not removed: it is a symbolic link; remove it yourself", SymlinkRefusedError)
    found = _digest(folder)
    if found != digest:
        keep = ", or keep it with deletionPolicy: Retain" if field == "spec.deletionPolicy" else ""
        raise folder.wrong(
            f"is not removed: its weights have the digest {found[:12]}…, and {digest[:12]}… is meant; remove the folder"
            f" yourself{keep}",
            DigestDiffersError,
        )
    with target.writing():
        target.path.rename(going)
        artifact.sync(target.store)
        shutil.rmtree(going)
    return True


def _digest(folder: Folder) -> str:
    """SHA-256 over the weights, as the inspection counts them."""
    names = folder.names()
    tree(folder)
    if "adapter_config.json" in names:
        chosen = [name for name in names if name.endswith(".safetensors")]
    else:
        chosen = chosen_weights(folder, names)
    with folder.reading():
        return weights.digest([folder.file(name) for name in sorted(chosen)])
