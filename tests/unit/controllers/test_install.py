from __future__ import annotations

import base64
import hmac

import pytest

from largeforge.controllers.install import MasterKeyNotMounted, install
from largeforge.controllers.keys import namespace_key, read_master_key
from largeforge.kube.cluster import SECRETS
from tests.unit.fakes import FakeCluster

MASTER = bytes(range(32))


async def run(cluster, *, master_key=None, make_clients=True, routers=("demo", "team")):
    await install(
        cluster,
        operator_namespace="largeforge-system",
        router_namespaces=routers,
        master_key=master_key,
        make_clients=make_clients,
    )


def secrets(cluster):
    return {
        (s["metadata"]["namespace"], s["metadata"]["name"]): {k: base64.b64decode(v) for k, v in s["data"].items()}
        for s in cluster.all(SECRETS)
    }


async def test_a_first_installation_makes_everything():
    cluster = FakeCluster()
    await run(cluster)
    made = secrets(cluster)
    master = made["largeforge-system", "largeforge-master-key"]["key"]
    assert len(master) == 32
    assert made["demo", "largeforge-namespace-key"] == {"key": namespace_key(master, "demo")}
    assert made["team", "largeforge-namespace-key"] == {"key": namespace_key(master, "team")}
    assert len(made["demo", "largeforge-clients"]["default"]) >= 32
    assert made["demo", "largeforge-clients"] != made["team", "largeforge-clients"]


async def test_an_upgrade_changes_nothing_and_makes_what_a_new_router_needs():
    cluster = FakeCluster()
    await run(cluster, routers=["demo"])
    before = secrets(cluster)
    master = before["largeforge-system", "largeforge-master-key"]["key"]
    await run(cluster, master_key=master)
    after = secrets(cluster)
    assert before.items() <= after.items()
    assert after["team", "largeforge-namespace-key"] == {"key": namespace_key(master, "team")}


async def test_without_an_operator_of_its_own_an_installation_makes_its_clients_and_no_key():
    cluster = FakeCluster()
    await install(cluster, operator_namespace=None, router_namespaces=["team"], master_key=None, make_clients=True)
    assert set(secrets(cluster)) == {("team", "largeforge-clients")}


async def test_a_master_key_that_is_there_but_not_mounted_is_an_error_before_anything_is_made():
    cluster = FakeCluster()
    await run(cluster, routers=[])
    with pytest.raises(MasterKeyNotMounted, match="largeforge-system/largeforge-master-key"):
        await run(cluster)
    assert len(secrets(cluster)) == 1


async def test_clients_are_made_on_demand_only():
    cluster = FakeCluster()
    await run(cluster, make_clients=False)
    assert not [name for _, name in secrets(cluster) if name == "largeforge-clients"]


def test_a_namespaces_key_is_its_own_and_stays():
    extracted = hmac.digest(bytes(32), MASTER, "sha256")  # RFC 5869, written out
    assert namespace_key(MASTER, "demo") == hmac.digest(extracted, b"namespace/demo\x01", "sha256")
    assert namespace_key(MASTER, "demo") != namespace_key(MASTER, "team")


def test_a_wrong_key_file_is_named(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes, not 32"):
        read_master_key(tmp_path / "key")
    with pytest.raises(ValueError, match="No such file"):
        read_master_key(tmp_path / "none")
