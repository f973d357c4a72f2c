"""The chart's hook: makes the keys that an installation lacks, and never changes one.

It may create Secrets and nothing else, so it cannot look at what is there: the master key, if there is one, is mounted
(`--master-key-file`, an optional volume). A first installation mounts nothing and makes all of it in one go. Where the
master key turns out to exist although nothing was mounted, this pod was faster than the kubelet's view of the Secret:
it ends with an error, and the Job's next pod has it mounted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from largeforge.api.names import MANAGED_BY, MANAGER
from largeforge.controllers.keys import namespace_key, new_client_key, new_master_key, read_master_key
from largeforge.kube.client import connect
from largeforge.kube.cluster import Cluster, ClusterError, Manifest

MASTER_KEY_SECRET = "largeforge-master-key"  # noqa: S105 - a name
NAMESPACE_KEY_SECRET = "largeforge-namespace-key"  # noqa: S105 - a name
CLIENTS_SECRET = "largeforge-clients"  # noqa: S105 - a name
ENTRY = "key"
DEFAULT_CLIENT = "default"

log = logging.getLogger("largeforge.install")


class MasterKeyNotMounted(Exception):  # noqa: N818 - said as it is
    """The master key exists, but this pod cannot see it."""


async def install(
    cluster: Cluster,
    *,
    operator_namespace: str | None,
    router_namespaces: Sequence[str],
    master_key: bytes | None,
    make_clients: bool,
) -> None:
    """Make what is missing of: the master key, the key of each router's namespace, the routers' clients.

    Without *operator_namespace* the keys are another installation's, and the clients alone are made.
    Raises `MasterKeyNotMounted`, having made nothing, where *master_key* is None although there is one.
    """
    if operator_namespace is not None and master_key is None:
        master_key = new_master_key()
        made = await _make(cluster, operator_namespace, MASTER_KEY_SECRET, {ENTRY: master_key})
        if not made:
            raise MasterKeyNotMounted(
                f"Secret {operator_namespace}/{MASTER_KEY_SECRET} exists but is not mounted here;"
                " the Job's next pod has it"
            )
    for namespace in router_namespaces:
        if operator_namespace is not None and master_key is not None:
            await _make(cluster, namespace, NAMESPACE_KEY_SECRET, {ENTRY: namespace_key(master_key, namespace)})
        if make_clients:
            await _make(cluster, namespace, CLIENTS_SECRET, {DEFAULT_CLIENT: new_client_key().encode()})


def secret(namespace: str, name: str, entries: Mapping[str, bytes]) -> Manifest:
    """A Secret with *entries*; kept when the chart is removed, since what it protects outlives the chart."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {MANAGED_BY: MANAGER, "app.kubernetes.io/part-of": MANAGER},
        },
        "type": "Opaque",
        "data": {entry: base64.b64encode(value).decode() for entry, value in entries.items()},
    }


async def _make(cluster: Cluster, namespace: str, name: str, entries: Mapping[str, bytes]) -> bool:
    """Whether the Secret was made; one that exists stays."""
    made = await cluster.create_once(secret(namespace, name, entries)) is not None
    log.info("Secret %s/%s: %s", namespace, name, "made" if made else "there already, left as it is")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the hook; 0 where all is there at the end."""
    parser = argparse.ArgumentParser(
        prog="python -m largeforge.controllers.install", description="Make the keys that an installation lacks."
    )
    parser.add_argument(
        "--operator-namespace", help="where the master key's Secret lies; without it no key is made, but of clients"
    )
    parser.add_argument(
        "--router-namespace", action="append", default=[], help="a namespace with a router; may be repeated"
    )
    parser.add_argument("--master-key-file", type=Path, help="the mounted master key; may be missing")
    parser.add_argument("--make-clients", action="store_true", help="make a Secret of clients with one random key, too")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mounted: Path | None = options.master_key_file
    try:
        # The volume is optional: the file may be missing.
        master_key = read_master_key(mounted) if mounted is not None and mounted.is_file() else None
        asyncio.run(_run(options, master_key))
    except (MasterKeyNotMounted, ClusterError, ValueError) as exc:
        log.error("%s", exc)  # noqa: TRY400 - the message says it all
        return 1
    return 0


async def _run(options: argparse.Namespace, master_key: bytes | None) -> None:
    async with connect(user_agent="largeforge-install") as cluster:
        await install(
            cluster,
            operator_namespace=options.operator_namespace,
            router_namespaces=options.router_namespace,
            master_key=master_key,
            make_clients=options.make_clients,
        )


if __name__ == "__main__":
    sys.exit(main())
