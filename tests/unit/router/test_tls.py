"""TLS from a mounted Secret: what is spoken, what is refused, and a certificate that changes under open connections."""

from __future__ import annotations

import asyncio
import datetime
import logging
import resource
import ssl
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from largeforge.router import protocol, server, tls
from largeforge.router.settings import Settings
from tests.unit.router.lab import (
    CHAT,
    CHAT_STREAM,
    KEY,
    LAST,
    STREAM,
    Answer,
    Lab,
    Raw,
    Received,
    chunk,
    completion,
    event,
    get,
    post,
    until,
)
from tests.unit.router.test_server import TABLE, Program, free_ports


def write(directory: Path, name: str, *, password: bytes | None = None) -> None:
    """A certificate for *name* and its key, put in place at once, as the kubelet does."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    data = directory / f"..{name}"
    data.mkdir(parents=True)
    (data / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (data / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    (directory / "..new").symlink_to(data.name)
    (directory / "..new").replace(directory / "..data")
    for entry in ("tls.crt", "tls.key"):
        if not (directory / entry).is_symlink():
            (directory / entry).symlink_to(f"..data/{entry}")


def client(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def shown(raw: Raw) -> str:
    """Whose certificate the connection was given."""
    found = raw.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found).subject.rfc4514_string()


@pytest.fixture
def certificate(tmp_path: Path) -> tls.Certificate:
    write(tmp_path, "one")
    return tls.Certificate(tmp_path)


async def test_requests_are_answered_and_streams_arrive_whole(lab: Lab, certificate: tls.Certificate):
    router = await lab.router(await lab.engine(), certificate=certificate)
    raw = await router.connect(client())
    for _ in range(3):
        await raw.send(post(CHAT))
        assert (await raw.answer()).body == completion()
        await raw.send(post(CHAT_STREAM))
        assert (await raw.answer()).body.endswith(LAST)
    await raw.send(get(b"/v1/models") * 3)
    assert [(await raw.answer()).status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("h2",), None), ((), None)])
async def test_only_http_1_1_is_agreed_on(lab: Lab, certificate: tls.Certificate, offered, chosen):
    router = await lab.router(await lab.engine(), certificate=certificate)
    raw = await router.connect(client(*offered))
    found = raw.writer.get_extra_info("ssl_object")
    assert found.selected_alpn_protocol() == chosen
    assert found.version() == "TLSv1.3"


async def test_tls_1_2_is_spoken_and_what_is_older_is_not(lab: Lab, certificate: tls.Certificate):
    router = await lab.router(await lab.engine(), certificate=certificate)
    context = client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    await router.connect(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is what is tried
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await router.connect(context)


async def test_plain_http_is_refused(lab: Lab, certificate: tls.Certificate):
    engine = await lab.engine()
    router = await lab.router(engine, certificate=certificate)
    raw = await router.connect()
    await raw.send(post(CHAT))
    assert b"HTTP" not in await raw.rest()
    assert engine.received == []


async def test_a_refusal_is_readable_and_the_connection_ends(
    lab: Lab, certificate: tls.Certificate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.1)
    router = await lab.router(await lab.engine(), certificate=certificate)
    for request, status in ((post(CHAT, key="wrong-key-0123456789"), 401), (b"nonsense\r\n\r\n", 400)):
        raw = await router.connect(client())
        await raw.send(request)
        assert Answer(await raw.rest()).status == status


async def test_who_does_not_shake_hands_is_closed_and_keeps_nobody_out(
    lab: Lab, certificate: tls.Certificate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 5)
    router = await lab.router(await lab.engine(), certificate=certificate, head_seconds=0.5)
    silent = [await router.connect() for _ in range(20)]
    raw = await router.connect(client())
    await raw.send(post(CHAT))
    assert (await raw.answer()).status == 200
    for each in silent:
        assert await each.rest() == b""


async def test_a_new_certificate_is_used_for_new_connections_and_open_ones_go_on(
    lab: Lab, certificate: tls.Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    router = await lab.router(await lab.engine(), certificate=certificate)
    following = asyncio.create_task(tls.follow(certificate, every_seconds=0.01))
    old = await router.connect(client())
    assert shown(old) == "CN=one"
    write(tmp_path, "two")
    await until(lambda: "the certificate has changed" in caplog.text)
    assert shown(await router.connect(client())) == "CN=two"
    (tmp_path / "..two" / "tls.crt").write_bytes((tmp_path / "..one" / "tls.crt").read_bytes())  # not its key's
    await until(lambda: "the last certificate stays in use" in caplog.text)
    assert shown(await router.connect(client())) == "CN=two"
    write(tmp_path, "three")
    await until(lambda: caplog.text.count("the certificate has changed") == 2)
    assert shown(await router.connect(client())) == "CN=three"
    await old.send(post(CHAT))
    assert (await old.answer()).status == 200
    assert "PRIVATE" not in caplog.text
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


async def test_a_client_that_leaves_ends_its_request(lab: Lab, certificate: tls.Certificate):
    async def held(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await received.gone()

    engine = await lab.engine(held)
    router = await lab.router(engine, certificate=certificate)
    for close in (Raw.close, lambda raw: raw.writer.close()):
        raw = await router.connect(client())
        await raw.send(post(CHAT_STREAM))
        await raw.until(event("a"))
        close(raw)
        await until(lambda: not engine.open)
    await router.idle()
    assert router.outcomes() == {("general", "fallback", "gone"): 2}


async def test_a_slow_client_slows_the_engine_and_fills_no_buffer(lab: Lab, certificate: tls.Certificate):
    total, sent = 40_000_000, 0

    async def script(received: Received) -> None:
        nonlocal sent
        await received.send(STREAM)
        while sent < total:
            await received.send(chunk(b"x" * 65_000))
            sent += 65_000
        await received.send(LAST)

    router = await lab.router(await lab.engine(script), certificate=certificate)
    raw = await router.connect(client())
    raw.writer.transport.pause_reading()
    await raw.send(post(CHAT_STREAM, headers=b"Connection: close\r\n"))
    await until(lambda: any(not c.writable for c in router.dispatcher.connections))
    (connection,) = router.dispatcher.connections
    assert connection._transport.get_write_buffer_size() < 600_000
    assert sent < total / 2
    raw.writer.transport.resume_reading()
    got = 0
    async with asyncio.timeout(20):
        while data := await raw.reader.read(1 << 20):
            got += len(data)
    assert got > total


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_broken_answer_has_no_orderly_end(lab: Lab, certificate: tls.Certificate, version: bytes):
    async def script(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await asyncio.wait_for(proceed.wait(), 5)
        received.reset()

    proceed = asyncio.Event()
    router = await lab.router(await lab.engine(script), certificate=certificate)
    raw = await router.connect(client())
    await raw.send(post(CHAT_STREAM).replace(b"HTTP/1.1", version))
    await raw.until(event("a"))
    proceed.set()
    if version == b"HTTP/1.0":
        with pytest.raises(ConnectionError):
            await raw.rest()
    else:
        assert not (await raw.rest()).endswith(LAST)


async def test_a_stream_outlives_the_listener(lab: Lab, certificate: tls.Certificate):
    async def slow(received: Received) -> None:
        await received.send(STREAM + chunk(event("a")))
        await until(lambda: router.dispatcher.draining)
        await received.send(LAST)

    router = await lab.router(await lab.engine(slow))
    _, health = free_ports()
    port, _ = free_ports()
    options = server.Options("127.0.0.1", port, health)
    async with server.serving(router.dispatcher, options, ready=lambda: None, certificate=certificate):
        raw = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=client()))
        await raw.send(post(CHAT_STREAM))
        await raw.until(event("a"))
    assert (await raw.rest()).endswith(LAST)
    raw.close()


# The certificate's files


def test_a_certificate_that_cannot_be_used_stops_the_start_with_the_remedy(tmp_path: Path):
    settings = Settings(tls_dir=tmp_path / "t")
    with pytest.raises(server.StartError, match=r"LARGEFORGE_TLS_DIR"):
        server.load_certificate(settings)
    write(tmp_path / "t", "locked", password=b"secret")
    with pytest.raises(server.StartError, match="the key is encrypted"):
        server.load_certificate(settings)
    assert server.load_certificate(Settings()) is None


async def test_the_program_speaks_tls(lab: Lab, tmp_path: Path):
    engine = await lab.engine()
    (tmp_path / "clients").mkdir()
    (tmp_path / "clients" / "team").write_text(KEY)
    (tmp_path / "table.yaml").write_text(TABLE % engine.port)
    write(tmp_path / "tls", "one")
    port, health = free_ports()
    program = Program(
        *("--table", str(tmp_path / "table.yaml"), "--host", "127.0.0.1"),
        *("--port", str(port), "--health-port", str(health)),
        LARGEFORGE_CLIENTS_DIR=str(tmp_path / "clients"),
        LARGEFORGE_TLS_DIR=str(tmp_path / "tls"),
    )
    await program.until(f"started on port {port} (TLS)")
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=client()))
    await raw.send(post(CHAT))
    assert (await raw.answer()).status == 200
    raw.close()
    program.terminate()
    assert await program.end() == 0
    assert "Traceback" not in program.log


def test_a_process_gets_the_files_that_its_connections_need(caplog: pytest.LogCaptureFixture):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
        server.raise_descriptor_limit(Settings(max_connections=100))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 2 * 100 + server.SPARE_DESCRIPTORS
        assert caplog.text == ""
        server.raise_descriptor_limit(Settings(max_connections=2_000_000_000))
        assert "LARGEFORGE_MAX_CONNECTIONS" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
