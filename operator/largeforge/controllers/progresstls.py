"""TLS of the progress endpoint: a CA that follows from the master key, and certificates that live in memory.

Every replica and every restart makes the same CA certificate, byte for byte (Ed25519 signs the same text the same way),
so that a run's ConfigMap that holds it stays good for as long as the master key does.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from largeforge.controllers.keys import progress_ca_seed

CA_SERIAL = 1
CA_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CA_END = datetime(2076, 1, 1, tzinfo=UTC)
"""Fixed, as all of the CA is: a new date would be a new certificate. A new master key is how it is replaced."""
LIFETIME = timedelta(hours=24)
"""Of a server certificate."""
RENEW_SECONDS = 8 * 3600.0
"""How often it is replaced: two replacements may fail before it ends."""
CLOCK_SKEW = timedelta(hours=1)
"""How far a node's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's key and certificate."""

    key: Ed25519PrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """The certificate, as the trainer's ConfigMap holds it."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


def authority(master_key: bytes) -> Authority:
    """The CA of this installation."""
    key = Ed25519PrivateKey.from_private_bytes(progress_ca_seed(master_key))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "largeforge-progress-ca")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(CA_SERIAL)
        .not_valid_before(CA_BEGIN)
        .not_valid_after(CA_END)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    return Authority(key, certificate)


def server_pem(ca: Authority, host: str, *, now: datetime) -> bytes:
    """A fresh key and its certificate for *host*, a DNS name or an address."""
    key = Ed25519PrivateKey.generate()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "largeforge-progress")]))
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
        .sign(ca.key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)


class ServerTls:
    """The server's side of TLS; `renew` gives connections that come later a fresh certificate."""

    def __init__(self, ca: Authority, host: str) -> None:
        self._ca = ca
        self._host = host
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def renew(self, *, now: datetime) -> None:
        """Serve a fresh certificate from now on."""
        # OpenSSL reads files only; this one has no name and is never on a disk.
        held = os.memfd_create("largeforge-progress", os.MFD_CLOEXEC)
        try:
            os.write(held, server_pem(self._ca, self._host, now=now))
            self.context.load_cert_chain(f"/proc/self/fd/{held}")
        finally:
            os.close(held)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
