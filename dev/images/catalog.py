"""What images there are, and the tag of each: a digest of all that it is made of."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.steps import StepError

REPOSITORY = "localhost/largeforge"
RECIPE = "1"
"""Counts the ways of building: another one (flags, base system) must give other tags."""

PACKAGE = "operator/largeforge"
SHARED_WITH_TRAINER = ("images/install-lock", "images/torch/requirements.lock", "images/trainer/requirements.lock")


@dataclass(frozen=True, kw_only=True)
class Image:
    """One folder of `images/`."""

    name: str
    inputs: Sequence[str]
    """Files that its Dockerfile takes, beside itself; paths in the repository."""
    based: bool = True
    """On our base image."""
    optional: bool = False
    """Whether it is built only where it is named."""
    carries_package: bool = False
    """Whether our own Python package is its last layer."""
    compiled: bool = False
    """Whether a stage of its build needs the toolchain."""
    gigabytes: float
    """Of its own layers, roughly."""

    @property
    def folder(self) -> str:
        """Of the image, in the repository."""
        return f"images/{self.name}"

    @property
    def dockerfile(self) -> str:
        """Path in the repository."""
        return f"{self.folder}/Dockerfile"


def _with_lock(name: str, *more: str) -> Sequence[str]:
    return ("images/install-lock", *more, f"images/{name}/requirements.lock")


BASE = Image(name="base", inputs=("images/base/packages.txt",), based=False, gigabytes=0.2)
TOOLCHAIN = Image(name="toolchain", inputs=("images/toolchain/packages.txt",), based=False, gigabytes=0.4)
# In the order of building: the layer of torch comes with the first of those that share it.
IMAGES: dict[str, Image] = {
    image.name: image
    for image in (
        Image(
            name="trainer",
            inputs=_with_lock("trainer", "images/torch/requirements.lock"),
            carries_package=True,
            gigabytes=5.5,
        ),
        Image(
            name="engine-cpu",
            inputs=(
                *_with_lock("engine-cpu", "images/torch/requirements.lock"),
                "images/engine-cpu/mend_lora.py",
            ),
            gigabytes=1.6,
        ),
        Image(
            name="quantizer",
            inputs=_with_lock("quantizer", "images/torch/requirements.lock"),
            carries_package=True,
            gigabytes=0.6,
        ),
        Image(
            name="quantizer-autoawq",
            inputs=_with_lock(
                "quantizer-autoawq",
                "images/torch/requirements.lock",
                "images/quantizer-autoawq/install-source",
                "images/quantizer-autoawq/source.lock",
            ),
            optional=True,
            carries_package=True,
            gigabytes=0.5,
        ),
        Image(name="operator", inputs=_with_lock("operator"), carries_package=True, gigabytes=0.2),
        Image(
            name="router",
            inputs=(
                *_with_lock("router"),
                "images/router/embedding/requirements.lock",
                "images/router/embedding/convert.py",
                "images/router/compile/requirements.lock",
                "images/router/compile/compile.py",
                *TOOLCHAIN.inputs,
            ),
            carries_package=True,
            compiled=True,
            gigabytes=0.6,
        ),
        Image(
            name="demo-model",
            inputs=(
                *_with_lock("demo-model", *SHARED_WITH_TRAINER[1:]),
                "images/demo-model/convert.py",
                "images/demo-model/copy_model.py",
            ),
            gigabytes=0.7,
        ),
    )
}


def select(names: Sequence[str]) -> list[Image]:
    """The images called *names*, all but the optional ones when there is none, in the order of building."""
    unknown = sorted(set(names) - set(IMAGES))
    if unknown:
        raise StepError(f"there is no image {', '.join(unknown)}", remedy=f"choose from: {', '.join(IMAGES)}")
    return [image for image in IMAGES.values() if image.name in names or not (names or image.optional)]


def references(root: Path) -> dict[str, str]:
    """Name → reference of every image, the base too, as the checkout at *root* would make them."""
    base = _tag(BASE, root, base="")
    return {
        BASE.name: reference(BASE.name, base),
        TOOLCHAIN.name: reference(TOOLCHAIN.name, _tag(TOOLCHAIN, root, base="")),
        **{name: reference(name, _tag(image, root, base=base)) for name, image in IMAGES.items()},
    }


def reference(name: str, tag: str) -> str:
    """Under which *name* at *tag* is known to buildah and to containerd."""
    return f"{REPOSITORY}-{name}:{tag}"


def package_files(root: Path) -> Iterator[Path]:
    """The files of our Python package, sorted; no byte code, no editor's leftovers."""
    for path in sorted((root / PACKAGE).rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and "__pycache__" not in parts and not any(part.startswith(".") for part in parts):
            yield path


def _tag(image: Image, root: Path, *, base: str) -> str:
    content = {
        "recipe": RECIPE,
        "base": base,
        "files": {path: _digest(root / path) for path in (image.dockerfile, *image.inputs)},
        "package": _package(root) if image.carries_package else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _package(root: Path) -> dict[str, object]:
    """All that the wheel is made of, but for the README, which is left out of the images."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    return {
        "files": {str(path.relative_to(root)): _digest(path) for path in package_files(root)},
        "license": _digest(root / "LICENSE"),
        "project": {key: project.get(key) for key in ("build-system", "project")},
        "hatch": project.get("tool", {}).get("hatch"),
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
