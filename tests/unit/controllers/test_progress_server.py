"""The endpoint over real TLS, with the trainer's own client and strangers' requests."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from cryptography import x509

from largeforge.controllers.health import serve_health
from largeforge.controllers.keys import namespace_key, progress_ca_seed
from largeforge.controllers.progressboard import Board
from largeforge.controllers.progressserver import BODY_BYTES, keep_progress, serve_progress
from largeforge.controllers.progresstls import ServerTls, authority, server_pem
from largeforge.controllers.progresstokens import Tokens
from largeforge.jobs.reporter import Reporter, Snapshot
from largeforge.kube.cluster import FINETUNEJOBS
from tests.unit.fakes import FakeCluster
from tests.unit.progress import Issuer, post, training_cluster

MASTER = bytes(range(32))
ISSUER = Issuer()


@asynccontextmanager
async def served(cluster=None):
    cluster = cluster or training_cluster()
    cluster.documents = ISSUER.documents()
    tls = ServerTls(authority(MASTER), "localhost")
    tls.renew(now=datetime.now(UTC))
    async with serve_progress(0, tls, tokens=Tokens(cluster), board=Board(cluster)) as port:
        yield cluster, f"https://localhost:{port}/v1/progress"


def trusting(ca=None):
    return ssl.create_default_context(cadata=(ca or authority(MASTER)).pem)


async def answer(url, body=None, *, token=None, headers=None, trust=None):
    headers = headers if headers is not None else {"Authorization": f"Bearer {token or ISSUER.token()}"}
    connector = aiohttp.TCPConnector(ssl=trust or trusting())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=post() if body is None else body, headers=headers) as response,
    ):
        return response.status, await response.text()


async def test_a_post_with_a_good_token_moves_the_status():
    async with served() as (cluster, url):
        assert await answer(url) == (200, "{}")
        raw = await cluster.get(FINETUNEJOBS, "team", "sql")
    assert raw["status"]["progress"]["summary"] == "30% 120/400"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"headers": {}}, (401, "there is no bearer token\n")),
        ({"headers": {"Authorization": "Basic eDp5"}}, (401, "there is no bearer token\n")),
        ({"token": "x"}, (401, "the token is no JWT\n")),
        ({"token": Issuer().token()}, (401, "the token's signature is wrong\n")),
        ({"token": ISSUER.token(age=7200)}, (401, "the token has expired\n")),
        ({"body": b"x" * (BODY_BYTES + 1)}, (413, "the body is larger than 16384 bytes\n")),
        ({"body": post(loss="nan")}, (400, "loss: the value is no finite number in its range\n")),
    ],
)
async def test_what_is_not_taken_is_answered_with_its_cause(arguments, expected):
    async with served() as (cluster, url):
        assert await answer(url, **arguments) == expected
    assert cluster.writes == []


async def test_a_strangers_body_is_not_read():
    async with served() as (_, url):
        status, _ = await answer(url, b"x" * (BODY_BYTES + 1), headers={})
    assert status == 401


async def test_a_pod_that_is_no_trainer_is_forbidden():
    async with served(training_cluster(run={"jobName": "sql-r1-a2"})) as (_, url):
        assert (await answer(url))[0] == 403


async def test_a_pod_that_posts_without_end_is_told_to_wait():
    async with served() as (_, url):
        codes = [(await answer(url))[0] for _ in range(7)]
    assert codes[0] == 200
    assert codes[-1] == 429


async def test_an_api_server_that_does_not_answer_is_said():
    async with served() as (cluster, url):
        cluster.documents = {}
        assert await answer(url) == (503, "the API server does not answer\n")


async def test_nothing_in_the_url_decides():
    async with served() as (cluster, url):
        assert (await answer(f"{url}?job=csv&namespace=other"))[0] == 200
        assert (await answer(url.replace("/v1/progress", "/v1/progress/other/csv")))[0] == 404
    assert [w[2] for w in cluster.writes] == ["sql"]


async def test_answers_are_counted_on_the_operators_port():
    async with served() as (_, url), serve_health(0, ready=asyncio.Event(), alive=lambda: True) as port:
        await answer(url)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text = await response.text()
    assert 'largeforge_operator_progress_posts_total{code="200"}' in text
    assert 'largeforge_operator_progress_writes_total{result="ok"}' in text


async def test_the_trainers_own_client_posts_to_it(tmp_path):
    (tmp_path / "ca").write_text(authority(MASTER).pem)
    (tmp_path / "token").write_text(ISSUER.token())
    async with served() as (cluster, url):
        reporter = Reporter.from_environment(
            {"LARGEFORGE_PROGRESS_URL": url}, ca_file=tmp_path / "ca", token_file=tmp_path / "token"
        )
        reporter.update(Snapshot(step=12, total_steps=60, epoch=0.2, loss=1.8321, learning_rate=1e-4, eta_seconds=41.2))
        await asyncio.to_thread(reporter.close)
        progress = (await cluster.get(FINETUNEJOBS, "team", "sql"))["status"]["progress"]
    assert (progress["summary"], progress["eta"], progress["loss"]) == ("20% 12/60", "41s", "1.832")


async def test_a_client_that_trusts_another_installation_does_not_connect():
    async with served() as (_, url):
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await answer(url, trust=trusting(authority(bytes(32))))


async def test_the_certificate_is_for_its_host_alone():
    async with served() as (_, url):
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await answer(url.replace("localhost", "127.0.0.1"))


async def test_a_renewed_certificate_serves_the_connections_that_come_later():
    cluster = training_cluster()
    cluster.documents = ISSUER.documents()
    tls = ServerTls(authority(MASTER), "localhost")
    tls.renew(now=datetime.now(UTC) - timedelta(days=3))
    async with serve_progress(0, tls, tokens=Tokens(cluster), board=Board(cluster)) as port:
        url = f"https://localhost:{port}/v1/progress"
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
            await answer(url)
        tls.renew(now=datetime.now(UTC))
        assert (await answer(url))[0] == 200


def test_the_ca_follows_from_the_master_key_and_is_no_key_of_anything_else():
    extracted = hmac.digest(bytes(32), MASTER, "sha256")  # RFC 5869, written out
    assert authority(MASTER).key.private_bytes_raw() == hmac.digest(extracted, b"progress-ca\x01", "sha256")
    assert progress_ca_seed(MASTER) != namespace_key(MASTER, "progress-ca")


def test_every_replica_and_restart_makes_the_same_ca_and_another_key_another_one():
    assert authority(MASTER).pem == authority(MASTER).pem
    assert authority(MASTER).pem != authority(bytes(32)).pem


def test_a_server_certificate_is_short_lived_and_for_an_address_too():
    now = datetime.now(UTC).replace(microsecond=0)
    pem = server_pem(authority(MASTER), "127.0.0.1", now=now)
    certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERTIFICATE") :])
    assert certificate.not_valid_after_utc == now + timedelta(hours=24)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


async def test_a_part_that_fails_ends_the_operators_part(monkeypatch):
    monkeypatch.setattr("largeforge.controllers.progressserver.FLUSH_SECONDS", 0.0)

    class Broken(Board):
        async def flush(self):
            raise RuntimeError("a mistake of ours")

    cluster = FakeCluster()
    tls = ServerTls(authority(MASTER), "localhost")
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(10):
            await keep_progress(0, tls, tokens=Tokens(cluster), board=Broken(cluster))
