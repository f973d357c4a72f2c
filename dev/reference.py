"""`docs/reference.md`, from the CRDs: `python -m dev.reference` writes it, a test holds it current."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dev.paths import REPO
from largeforge.api import crds
from largeforge.api.names import API_VERSION

REFERENCE = REPO / "docs" / "reference.md"

Schema = dict[str, Any]

_HEAD = f"""\
<!-- Generated from the CRDs by `make generate`. Change the models in operator/largeforge/api/ instead. -->
# Reference: the kinds of `{API_VERSION}`

The same texts as `kubectl explain`. In a path, `[]` is an entry of a list. Where the default is empty and the field is
left out, the description says what is used instead, if anything. The operator alone writes the status.
"""


def fields(node: Schema, path: str, *, required: bool = False) -> Iterator[tuple[str, Schema, bool]]:
    """Each field at and below *path*, whether it is required, in the order of the schema."""
    yield path, node, required
    if "items" in node:
        yield from _children(node["items"], f"{path}[]")
    elif isinstance(node.get("additionalProperties"), dict):
        yield from _children(node["additionalProperties"], f"{path}.*")
    else:
        yield from _children(node, path)


def _children(node: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}", required=name in node.get("required", []))


def type_of(node: Schema) -> str:
    """What may be written there, with its bounds, in a few words."""
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if node["type"] == "array":
        return f"list{_at_most(node, 'Items', 'entries')}: {type_of(node['items'])}"
    if node["type"] == "object":
        values = node.get("additionalProperties")
        return f"map{_at_most(node, 'Properties', 'entries')}: {type_of(values)}" if values else "object"
    if node["type"] == "string":
        return f"{node.get('format', 'string')}{_at_most(node, 'Length', 'characters')}"
    return f"{node['type']}{_range(node)}"


def _at_most(node: Schema, bound: str, unit: str) -> str:
    most = node.get(f"max{bound}")
    return "" if most is None else f", at most {most} {unit}"


def _range(node: Schema) -> str:
    match node.get("minimum"), node.get("maximum"):
        case None, None:
            return ""
        case least, None:
            return f", at least {_number(least)}"
        case None, most:
            return f", at most {_number(most)}"
        case least, most:
            return f", {_number(least)} to {_number(most)}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_of(node: Schema, *, required: bool) -> str:
    """What is used where the field is left out."""
    if required:
        return "required"
    if "default" not in node or node["default"] == {}:
        return ""
    value = node["default"]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def rules_of(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """Where each rule over several fields holds, and its message."""
    for where, node, _ in fields(schema, path):
        for owner, at in ((node, where), (node.get("items", {}), f"{where}[]")):
            for rule in owner.get("x-kubernetes-validations", []):
                yield at, rule["message"]


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _table(schema: Schema, path: str, *, defaults: bool) -> Iterator[str]:
    yield "| field | type | default | description |" if defaults else "| field | type | description |"
    yield "| --- | --- | --- | --- |" if defaults else "| --- | --- | --- |"
    for where, node, required in fields(schema, path):
        if where == path:
            continue
        default = [default_of(node, required=required)] if defaults else []
        cells = [f"`{where}`", type_of(node), *default, node.get("description", "")]
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _section(kind: crds.Kind) -> Iterator[str]:
    manifest = crds.crd(kind)
    names = manifest["spec"]["names"]
    root = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    yield from (f"## {kind.name}", "", root["description"], "")
    yield f"Plural `{names['plural']}`, short `{names['shortNames'][0]}`, category `forge`."
    yield from ("", "### Spec", "", *_table(root["properties"]["spec"], "spec", defaults=True))
    yield from ("", "### What the API server refuses", "")
    yield "Beside a wrong type and a value out of bounds, with these words:"
    yield ""
    for where, message in (*_own_rules(root), *rules_of(root["properties"]["spec"], "spec")):
        yield f"- {f'`{where}`: ' if where else ''}{message}"
    yield from ("", "### Status", "", *_table(root["properties"]["status"], "status", defaults=False))
    yield from ("", "### Columns of `kubectl get`", "")
    for column in kind.columns:
        yield f"- `{column.name}`: `{column.path}`{' (with `-o wide`)' if column.wide else ''}"
    yield ""


def _own_rules(root: Schema) -> Iterator[tuple[str, str]]:
    for rule in root.get("x-kubernetes-validations", []):
        yield "", rule["message"]


def render() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for kind in crds.KINDS for line in _section(kind))])


def main() -> None:
    REFERENCE.write_text(render())


if __name__ == "__main__":
    main()
