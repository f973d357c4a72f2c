"""The chart's README, from `values.yaml`: `python -m dev.chartreadme` writes it, a test holds it current."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from dev.chart import CHART

README = CHART / "README.md"
_INDENT = 2
_KEY = re.compile(r"( *)([A-Za-z]+):( .*)?")
_HEAD = """\
<!-- Generated from values.yaml by `make generate`. Change the comments there instead. -->
# The chart `largeforge`

The operator, a router in each namespace that wants one, and the CustomResourceDefinitions of the four kinds. It needs
Kubernetes 1.31 and images that the cluster can pull ([docs/images.md](../../docs/images.md)).

```sh
helm upgrade --install largeforge charts/largeforge --namespace largeforge-system --create-namespace \\
  --set imageRegistry=registry.example/team
```

An upgrade is the same command; the CRDs are upgraded with it. `helm uninstall` leaves the keys' Secrets and, with
`crds.keep`, the CRDs and their objects; the chart's notes say how to remove them.

- Rights: [docs/rbac.md](../../docs/rbac.md), with `operator.namespaced` for an install with Roles only.
- Argo CD: [docs/gitops.md](../../docs/gitops.md); its health checks are in `files/argocd`.
- GPUs, storage and the hub: [docs/gpu.md](../../docs/gpu.md).

## Values

The schema refuses what is not in this table.

| value | default | |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One value that may be set."""

    path: str
    default: Any
    text: str


def values() -> Iterator[Value]:
    """Each value with a comment that begins with `# --`, in the order of the file."""
    text = (CHART / "values.yaml").read_text()
    whole = yaml.safe_load(text)
    path: list[str] = []
    comment: list[str] = []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            comment.append(bare.removeprefix("#").strip())
            continue
        found = _KEY.fullmatch(line)
        if found is not None:
            path = [*path[: len(found[1]) // _INDENT], found[2]]
            if comment and comment[0].startswith("-- "):
                yield Value(".".join(path), _at(whole, path), " ".join(comment).removeprefix("-- "))
        comment = []


def _at(whole: Any, path: list[str]) -> Any:
    for key in path:
        whole = whole[key]
    return whole


def render() -> str:
    """The page."""
    rows = (f"| `{v.path}` | `{json.dumps(v.default)}` | {v.text.replace('|', chr(92) + '|')} |\n" for v in values())
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    README.write_text(render())
