"""Certificates, keys and kubeconfigs of a cluster."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3650)
"""A local cluster has no rotation: its certificates outlive it."""

CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Somebody whom the cluster's CA vouches for."""

    file: str
    common_name: str
    organisation: str | None = None
    serves: Sequence[str] = ()
    """Names and addresses of a server; empty for a client only."""
    authority: str = "ca"
    kubeconfig: bool = False


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def identities(*, node: str, node_address: str, service_address: str, cluster_domain: str) -> list[Identity]:
    """Everybody in a cluster of one node."""
    service = "kubernetes.default"
    api_names = ["kubernetes", service, f"{service}.svc", f"{service}.svc.{cluster_domain}", "localhost"]
    api_addresses = ["127.0.0.1", service_address, node_address]
    return [
        Identity(file="apiserver", common_name="kube-apiserver", serves=[*api_names, *api_addresses]),
        Identity(file="kubelet-serving", common_name=node, serves=[node, node_address]),
        Identity(file="apiserver-kubelet", common_name="apiserver-kubelet", organisation="system:masters"),
        Identity(file="front-proxy", common_name="front-proxy", authority="front-proxy-ca"),
        Identity(file="admin", common_name="admin", organisation="system:masters", kubeconfig=True),
        Identity(file="controller-manager", common_name="system:kube-controller-manager", kubeconfig=True),
        Identity(file="scheduler", common_name="system:kube-scheduler", kubeconfig=True),
        Identity(file="proxy", common_name="system:kube-proxy", kubeconfig=True),
        Identity(file="kubelet", common_name=f"system:node:{node}", organisation="system:nodes", kubeconfig=True),
    ]


def ensure_certificates(folder: Path, wanted: Sequence[Identity], *, server: str) -> None:
    """Make *folder*: two CAs, *wanted*, the service accounts' key, kubeconfigs for *server*.

    It appears when it is whole; one that exists is kept, because running pods trust its CA.
    """
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, mode=0o700)
    authorities = {name: _authority(name) for name in ("ca", "front-proxy-ca")}
    for name, authority in authorities.items():
        _write_pair(unfinished, name, authority)
    for identity in wanted:
        pair = issue(identity, authorities[identity.authority])
        _write_pair(unfinished, identity.file, pair)
        if identity.kubeconfig:
            text = kubeconfig(identity.file, pair, authority=authorities["ca"].certificate, server=server)
            write_private(unfinished / f"{identity.file}.kubeconfig", text)
    accounts = ec.generate_private_key(ec.SECP256R1())
    write_private(unfinished / "service-accounts.key", _key_text(accounts))
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_private(unfinished / "service-accounts.pub", public.decode())
    unfinished.rename(folder)


def issue(identity: Identity, authority: Pair) -> Pair:
    """A new key for *identity* with a certificate that *authority* has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.organisation:
        names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organisation))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if identity.serves else [])]
    builder = _builder(x509.Name(names), authority.certificate.subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    if identity.serves:
        served = [_general_name(name) for name in identity.serves]
        builder = builder.add_extension(x509.SubjectAlternativeName(served), critical=False)
    return Pair(key, builder.sign(authority.key, hashes.SHA256()))


def kubeconfig(user: str, pair: Pair, *, authority: x509.Certificate, server: str) -> str:
    """A kubeconfig (JSON, which is YAML) that needs no other file."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "largeforge",
        "clusters": [
            {
                "name": "largeforge",
                "cluster": {"server": server, "certificate-authority-data": _base64(_certificate_text(authority))},
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": _base64(_certificate_text(pair.certificate)),
                    "client-key-data": _base64(_key_text(pair.key)),
                },
            }
        ],
        "contexts": [{"name": "largeforge", "context": {"cluster": "largeforge", "user": user}}],
    }
    return json.dumps(content, indent=2) + "\n"


def write_private(path: Path, text: str) -> None:
    """Replace *path* at once by *text*, readable by its owner only."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.rename(path)


def _authority(name: str) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"largeforge-{name}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(subject, subject, key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Pair(key, builder.sign(key, hashes.SHA256()))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_pair(folder: Path, name: str, pair: Pair) -> None:
    write_private(folder / f"{name}.crt", _certificate_text(pair.certificate))
    write_private(folder / f"{name}.key", _key_text(pair.key))


def _certificate_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
