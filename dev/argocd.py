"""The health checks of our kinds as the part of Argo CD's settings that they are: `python -m dev.argocd` writes it.

Each check is a Lua script in the chart; Argo CD takes it as a text in its one ConfigMap, `argocd-cm`: both stand there.
"""

from __future__ import annotations

from textwrap import indent

from dev.paths import REPO
from largeforge.api.names import GROUP

FOLDER = REPO / "charts" / "largeforge" / "files" / "argocd"
SETTINGS = FOLDER / "argocd-cm.yaml"
SCRIPTS = {
    "FineTuneJob": "job.lua",
    "QuantizeJob": "job.lua",
    "InferenceService": "service.lua",
    "Expert": "service.lua",
}
"""The script of each kind."""
_HEAD = """\
# Written by `make generate` from the scripts beside it: the health checks of LargeForge's kinds. Add them to Argo CD's
# own settings with `kubectl apply --server-side`, which leaves the other entries as they are (docs/gitops.md).
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  labels:
    app.kubernetes.io/name: argocd-cm
    app.kubernetes.io/part-of: argocd
data:
"""


def script(kind: str) -> str:
    """The Lua script that tells the health of a *kind*."""
    return (FOLDER / SCRIPTS[kind]).read_text()


def render() -> str:
    """The ConfigMap with all checks, and nothing else of Argo CD's settings."""
    return _HEAD + "".join(
        f"  resource.customizations.health.{GROUP}_{kind}: |\n{indent(script(kind), '    ')}" for kind in SCRIPTS
    )


if __name__ == "__main__":
    SETTINGS.write_text(render())
