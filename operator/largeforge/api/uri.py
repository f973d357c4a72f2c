"""The one parser of URIs: `pvc://claim/path`, `configmap://name/key` and `hf://org/repo`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
# No segment may begin with a dot: that leaves out `.`, `..` and hidden files, and needs no look-ahead (RE2 has none).
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9._=+-]*"
PVC_PATTERN = rf"^pvc://{_NAME}(/{_SEGMENT})*$"
CONFIGMAP_PATTERN = rf"^configmap://{_NAME}/[A-Za-z0-9_][A-Za-z0-9._-]*$"

_REPO = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
HF_PATTERN = rf"^hf://{_REPO}$"

PvcUriText = Annotated[str, Field(max_length=512, pattern=PVC_PATTERN)]
"""`pvc://claim/path`: a folder or file on a PersistentVolumeClaim of the same namespace."""
ModelUriText = Annotated[str, Field(max_length=512, pattern=rf"^(pvc://{_NAME}(/{_SEGMENT})*|hf://{_REPO})$")]
"""`pvc://claim/path` or `hf://org/repo`."""
DatasetUriText = Annotated[
    str,
    Field(
        max_length=512,
        pattern=rf"^(pvc://{_NAME}(/{_SEGMENT})+|configmap://{_NAME}/[A-Za-z0-9_][A-Za-z0-9._-]*|hf://{_REPO})$",
    ),
]
"""`pvc://claim/path`, `configmap://name/key` or `hf://org/name`."""
TemplateUriText = Annotated[
    str,
    Field(
        max_length=512,
        pattern=rf"^(pvc://{_NAME}(/{_SEGMENT})+|configmap://{_NAME}/[A-Za-z0-9_][A-Za-z0-9._-]*)$",
    ),
]
"""`configmap://name/key` or `pvc://claim/path` of one file."""
Revision = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*$")
]
"""Branch, tag or commit of a repository of the hub."""


@dataclass(frozen=True, slots=True)
class PvcUri:
    """A path on a claim."""

    claim: str
    path: str
    """Relative, without a leading or trailing slash; empty for the claim's root."""

    def __str__(self) -> str:
        """The URI as it is written."""
        return f"pvc://{self.claim}/{self.path}" if self.path else f"pvc://{self.claim}"

    def child(self, name: str) -> PvcUri:
        """The entry *name* below this path."""
        return PvcUri(self.claim, f"{self.path}/{name}" if self.path else name)

    def relative_to(self, parent: PvcUri) -> str | None:
        """The path below *parent*, or None where this does not lie strictly inside it."""
        if self.claim != parent.claim:
            return None
        if not parent.path:
            return self.path or None
        prefix = parent.path + "/"
        return self.path.removeprefix(prefix) if self.path.startswith(prefix) else None


@dataclass(frozen=True, slots=True)
class ConfigMapUri:
    """A key of a ConfigMap."""

    name: str
    key: str

    def __str__(self) -> str:
        """The URI as it is written."""
        return f"configmap://{self.name}/{self.key}"


@dataclass(frozen=True, slots=True)
class HfUri:
    """A repository of the hub."""

    repo: str
    """`org/name`."""

    def __str__(self) -> str:
        """The URI as it is written."""
        return f"hf://{self.repo}"


def parse_pvc(text: str) -> PvcUri:
    """Read `pvc://claim/path`; a `ValueError` names the text and the form that is wanted."""
    if not re.fullmatch(PVC_PATTERN, text):
        raise ValueError(
            f"not a pvc:// URI (got {text!r}); write pvc://<claim>/<path>, no segment beginning with a dot"
        )
    claim, _, path = text.removeprefix("pvc://").partition("/")
    return PvcUri(claim, path)


def parse(text: str) -> PvcUri | ConfigMapUri | HfUri:
    """Read any form; a `ValueError` as in `parse_pvc`."""
    if re.fullmatch(HF_PATTERN, text):
        return HfUri(text.removeprefix("hf://"))
    if re.fullmatch(CONFIGMAP_PATTERN, text):
        name, _, key = text.removeprefix("configmap://").partition("/")
        return ConfigMapUri(name, key)
    return parse_pvc(text)
