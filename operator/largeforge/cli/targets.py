"""How a user names an object: `ftj/sql`, `finetunejob/sql`, or `sql` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from largeforge.api import crds
from largeforge.api.names import API_VERSION, GROUP
from largeforge.cli.session import CliError
from largeforge.kube.cluster import Cluster, Manifest, Resource

KINDS: Mapping[str, crds.Kind] = {kind.name: kind for kind in crds.KINDS}
"""By their names, in the order of their short names' documentation."""
JOBS = ("FineTuneJob", "QuantizeJob")
SUSPENDABLE = (*JOBS, "InferenceService")


def resource(kind: str) -> Resource:
    """Where objects of *kind* are."""
    return Resource(API_VERSION, KINDS[kind].plural)


def short(manifest: Manifest) -> str:
    """`ftj/sql`: how it is written on the command line."""
    return f"{KINDS[manifest['kind']].short}/{manifest['metadata']['name']}"


def kind_of(word: str) -> str | None:
    """The kind that *word* means, as kubectl would take it."""
    asked = word.lower().removesuffix(f".{GROUP}")
    return next((k.name for k in crds.KINDS if asked in (k.short, k.plural, k.name.lower())), None)


async def find(cluster: Cluster, namespace: str, said: str, among: Sequence[str]) -> Manifest:
    """The one object that *said* names; a `CliError` where it is no kind of *among*, not there, or one of two."""
    word, _, name = said.rpartition("/")
    kinds = list(among)
    if word:
        kind = kind_of(word)
        if kind is None or kind not in among:
            raise CliError(
                f"{said}: {word!r} has no such command; name a {_either(among)}, for example {_example(among)}"
            )
        kinds = [kind]
    found = [m for kind in kinds if (m := await cluster.get(resource(kind), namespace, name)) is not None]
    if not found:
        raise CliError(
            f"no {_either(kinds)} {name!r} in namespace {namespace!r};"
            f" kubectl largeforge status -n {namespace} lists what is there"
        )
    if len(found) > 1:
        raise CliError(f"{name!r} is several objects; write one of: {', '.join(short(m) for m in found)}")
    return found[0]


def _either(kinds: Sequence[str]) -> str:
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


def _example(kinds: Sequence[str]) -> str:
    return f"{KINDS[kinds[0]].short}/NAME"
