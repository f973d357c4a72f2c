import ipaddress
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dev.cluster.certificates import ensure_certificates, identities

WHO = identities(node="node", node_address="192.0.2.7", service_address="10.96.0.1", cluster_domain="cluster.local")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ensure_certificates(tmp_path / "pki", WHO, server="https://192.0.2.7:6443")
    return tmp_path / "pki"


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def test_api_server_is_served_under_all_its_names(folder: Path) -> None:
    names = certificate(folder, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(address) for address in ("127.0.0.1", "10.96.0.1", "192.0.2.7")
    ]


def test_kubelet_is_known_as_its_node(folder: Path) -> None:
    subject = certificate(folder, "kubelet").subject
    assert subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:node"
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"


def test_clients_do_not_serve(folder: Path) -> None:
    usage = certificate(folder, "admin").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize(
    ("name", "authority"), [("apiserver", "ca"), ("admin", "ca"), ("front-proxy", "front-proxy-ca")]
)
def test_certificates_are_signed_by_their_authority(folder: Path, name: str, authority: str) -> None:
    certificate(folder, name).verify_directly_issued_by(certificate(folder, authority))


def test_kubeconfig_needs_no_other_file(folder: Path) -> None:
    content = json.loads((folder / "admin.kubeconfig").read_text())
    assert content["clusters"][0]["cluster"]["server"] == "https://192.0.2.7:6443"
    assert sorted(content["users"][0]["user"]) == ["client-certificate-data", "client-key-data"]


def test_keys_are_their_owners(folder: Path) -> None:
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in folder.iterdir()}
    assert {name for name, mode in modes.items() if mode != "0o600"} == set()


def test_certificates_that_exist_are_kept(folder: Path) -> None:
    before = (folder / "ca.crt").read_text()
    ensure_certificates(folder, WHO, server="https://192.0.2.7:6443")
    assert (folder / "ca.crt").read_text() == before


def test_half_made_folder_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / ".pki.new").mkdir()
    (tmp_path / ".pki.new" / "ca.key").write_text("half")
    ensure_certificates(tmp_path / "pki", WHO, server="https://192.0.2.7:6443")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pki"]
