"""The CRDs, generated from the models: `python -m largeforge.api.crds FOLDER` writes one file for each kind."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from largeforge.api.expert import Expert
from largeforge.api.finetunejob import FineTuneJob
from largeforge.api.inferenceservice import InferenceService
from largeforge.api.model import Model
from largeforge.api.names import GROUP, VERSION
from largeforge.api.quantizejob import QuantizeJob

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "format",
    "enum",
    "default",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)
_REFUSED = ("exclusiveMinimum", "exclusiveMaximum", "oneOf", "allOf", "not", "multipleOf")


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def manifest(self) -> dict[str, Any]:
        """The column as a CRD writes it; wide ones are shown by `-o wide` only."""
        shown: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return shown | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True, slots=True)
class Kind:
    """What a CRD says beside its schema."""

    model: type[Model]
    plural: str
    short: str
    columns: tuple[Column, ...]
    scale: bool = False
    """Whether it has the scale subresource, over `spec.replicas`, `status.replicas` and `status.selector`."""

    @property
    def name(self) -> str:
        """The kind, for example `Expert`."""
        return self.model.__name__


SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
AGE = Column("AGE", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        FineTuneJob,
        "finetunejobs",
        "ftj",
        (
            Column("METHOD", ".spec.method"),
            Column("BASE", ".status.base"),
            Column("PHASE", ".status.phase"),
            Column("PROGRESS", ".status.progress.summary"),
            Column("LOSS", ".status.progress.loss"),
            Column("ETA", ".status.progress.eta"),
            AGE,
            Column("GPUS", ".spec.compute.gpusPerNode", "integer", wide=True),
            Column("GATE", ".status.gate.verdict", wide=True),
            Column("RUN", ".status.run.number", "integer", wide=True),
            Column("ATTEMPT", ".status.run.attempt", "integer", wide=True),
            Column("RESUMES", ".status.run.resumes", "integer", wide=True),
            Column("ARTIFACT", ".status.artifact.uri", wide=True),
        ),
    ),
    Kind(
        QuantizeJob,
        "quantizejobs",
        "qj",
        (
            Column("SOURCE", ".status.sourceText"),
            Column("METHOD", ".status.method"),
            Column("PHASE", ".status.phase"),
            Column("PROGRESS", ".status.progress.summary"),
            Column("ETA", ".status.progress.eta"),
            Column("PPL-BEFORE", ".status.evaluation.perplexity"),
            Column("PPL-AFTER", ".status.perplexityAfter"),
            Column("RATIO", ".status.compressionRatio"),
            AGE,
            Column("GPUS", ".spec.compute.gpusPerNode", "integer", wide=True),
            Column("CHOSEN", ".status.chosenMethod", wide=True),
            Column("RUN", ".status.run.number", "integer", wide=True),
            Column("ATTEMPT", ".status.run.attempt", "integer", wide=True),
            Column("ARTIFACT", ".status.artifact.uri", wide=True),
        ),
    ),
    Kind(
        InferenceService,
        "inferenceservices",
        "infsvc",
        (
            Column("MODEL", ".status.model.uri"),
            Column("READY", ".status.summary"),
            Column("GPUS", ".spec.compute.gpusPerReplica", "integer"),
            Column("ADAPTERS", ".status.adapterCount", "integer"),
            Column("URL", ".status.url"),
            AGE,
        ),
        scale=True,
    ),
    Kind(
        Expert,
        "experts",
        "xp",
        (
            Column("TYPE", ".spec.type"),
            Column("DOMAINS", ".spec.routing.domains"),
            Column("VERSION", ".spec.version"),
            Column("STAGE", ".spec.stage"),
            Column("SERVICE", ".spec.inferenceServiceRef.name"),
            Column("LOADED", ".status.placement.summary"),
            Column("READY", ".status.conditions[?(@.type=='Ready')].status"),
            AGE,
            Column("REASON", ".status.conditions[?(@.type=='Ready')].reason", wide=True),
            Column("BASE", ".status.resolved.base", wide=True),
            Column("GATE", ".status.evaluation.gate", wide=True),
            Column("SOURCE", ".status.source", wide=True),
        ),
    ),
)


def structural(node: Schema, definitions: Schema, *, defaults: bool = True) -> Schema:
    """The structural schema of a pydantic JSON schema node: references inlined, optional unwrapped, titles dropped.

    Raises `TypeError` for what a structural schema cannot say.
    """
    node = _plain(node, definitions)
    out: Schema = {k: copy.deepcopy(v) for k, v in node.items() if k in _KEPT or k.startswith("x-kubernetes-")}
    if "default" in out:
        _shorten_default(out, node, keep=defaults)
    if "description" in out:
        out["description"] = " ".join(str(out["description"]).split())
    if "properties" in node:
        out["properties"] = {k: structural(v, definitions, defaults=defaults) for k, v in node["properties"].items()}
        if out.get("default") == {} and "x-kubernetes-validations" in out:
            out["default"] = _filled(out)
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            out[word] = structural(node[word], definitions, defaults=defaults)
    return out


def _plain(node: Schema, definitions: Schema) -> Schema:
    """*node* without references, unions with null, and constants."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        return _plain(target | {k: v for k, v in node.items() if k != "$ref"}, definitions)
    if "anyOf" in node:
        real = [n for n in node["anyOf"] if n != {"type": "null"}]
        if len(real) != 1:
            raise TypeError(f"no structural form for a union: {node}")
        return _plain(real[0] | {k: v for k, v in node.items() if k != "anyOf"}, definitions)
    for word in _REFUSED:
        if word in node:
            raise TypeError(f"no structural form for {word}: {node}")
    return node | {"enum": [node["const"]]} if "const" in node else node


def _shorten_default(out: Schema, node: Schema, *, keep: bool) -> None:
    """Leave out defaults of None and of empty maps and lists; an object's is `{}`, its fields bring their own.

    Where the object has rules, it is written out: the API server checks a default against them before it fills it in.
    """
    if not keep or out["default"] in (None, [], {}):
        del out["default"]
    if keep and "properties" in node and node["default"] is not None:
        out["default"] = _said(node["default"]) if "x-kubernetes-validations" in node else {}


def _said(default: Schema) -> Schema:
    """*default* without what is None or empty."""
    found = {name: _said(value) if isinstance(value, dict) else value for name, value in default.items()}
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def _filled(schema: Schema) -> Schema:
    """The default of an object with rules, written out: the API server tries the rules on it as it stands."""
    children = schema["properties"].items()
    return {name: child["default"] for name, child in children if "default" in child}


def _root_schema(model: type[Model]) -> Schema:
    raw = model.model_json_schema(by_alias=True)
    definitions = raw.get("$defs", {})
    spec = structural(raw["properties"]["spec"], definitions)
    spec.pop("default", None)
    status = structural(raw["properties"]["status"], definitions, defaults=False)
    schema: Schema = {
        "type": "object",
        "description": " ".join(str(raw["description"]).split()),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if "x-kubernetes-validations" in raw:
        schema["x-kubernetes-validations"] = raw["x-kubernetes-validations"]
    return schema


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of *kind*."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short],
                "categories": ["forge"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} | ({"scale": SCALE} if kind.scale else {}),
                    "additionalPrinterColumns": [column.manifest() for column in kind.columns],
                    "schema": {"openAPIV3Schema": _root_schema(kind.model)},
                }
            ],
        },
    }


class _Quoted(str):
    """A string value; keys stay plain."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Never: every part is written out."""
        return True


_Dumper.add_representer(
    _Quoted, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')
)


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quoted(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_quoted(child) for child in value]
    return _Quoted(value) if isinstance(value, str) else value


def render_yaml(value: Any) -> str:
    """YAML with every string value double-quoted, so that no reader takes `"1.20"` or `"no"` for something else."""
    return yaml.dump(_quoted(value), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def render() -> dict[str, str]:
    """File name to text, for every kind."""
    return {f"{kind.plural}.yaml": render_yaml(crd(kind)) for kind in KINDS}


def main() -> None:
    """Write the CRDs into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files go, for example crds")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
