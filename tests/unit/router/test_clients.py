from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from largeforge.router import server
from largeforge.router.clients import Clients, fingerprint, read
from largeforge.router.settings import Settings
from tests.unit.router.lab import CHAT, KEY, Answer, Lab, get, post, until

OTHER = "other-key-0123456789"


def bearer(key: str):
    return f"Bearer {key}".encode()


def test_a_key_names_its_client():
    clients = Clients({"team": [KEY, OTHER], "lab": ["third-key-0123456789"]})
    assert clients.name_of(bearer(KEY)) == "team"
    assert clients.name_of(bearer(OTHER)) == "team"
    assert clients.name_of(bearer("third-key-0123456789")) == "lab"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer", "bEaReR"])
def test_the_scheme_is_written_in_any_case(scheme: str):
    assert Clients({"team": [KEY]}).name_of(f"{scheme} {KEY}".encode()) == "team"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        KEY.encode(),
        b"Basic " + KEY.encode(),
        bearer(KEY[:-1]),
        bearer(KEY + "x"),
        bearer(KEY.upper()),
    ],
)
def test_all_else_is_nobody(value: bytes):
    assert Clients({"team": [KEY]}).name_of(value) is None


def test_short_and_shared_keys_are_refused_by_the_clients_name_and_never_shown():
    clients = Clients({"a": ["short", KEY], "b": [KEY], "c": [OTHER]})
    assert (clients.name_of(bearer("short")), clients.name_of(bearer(KEY))) == (None, None)
    assert clients.name_of(bearer(OTHER)) == "c"
    assert clients.problems == [
        "client a: a key has 5 characters and is refused; write one of at least 16",
        "clients a, b: hold the same key, which is refused; give each its own",
    ]


def test_a_directory_is_read_as_a_secret_is_mounted(tmp_path: Path):
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "team").write_text(f"\n{KEY}\n\n  {OTHER}  \n")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "team").symlink_to("..data/team")
    assert read(tmp_path) == {"team": [KEY, OTHER]}
    assert read(tmp_path / "none") == {}


def test_the_fingerprint_changes_with_a_files_content_and_with_the_mounts_swap(tmp_path: Path):
    first, second = tmp_path / "..1", tmp_path / "..2"
    for folder in (first, second):
        folder.mkdir()
        (folder / "team").write_text(KEY)
    (tmp_path / "..data").symlink_to(first.name)
    (tmp_path / "team").symlink_to("..data/team")
    before = fingerprint(tmp_path)
    (tmp_path / "..new").symlink_to(second.name)
    (tmp_path / "..new").replace(tmp_path / "..data")  # as the kubelet does
    assert fingerprint(tmp_path) != before


# Over the wire


@pytest.mark.parametrize(
    "request_",
    [
        post(CHAT, key="wrong-key-0123456789"),
        post(CHAT).replace(b"Authorization", b"X-Api-Key"),
        post(CHAT, headers=b"Authorization: Bearer " + KEY.encode() + b"\r\n"),  # twice
        post(b"not json", key="wrong-key-0123456789"),
        get(b"/v1/models", key="wrong-key-0123456789"),
        get(b"/anything", key="wrong-key-0123456789"),
        get(b"/metrics", key="wrong-key-0123456789"),
    ],
)
async def test_nothing_is_done_for_who_has_no_key(lab: Lab, request_: bytes):
    engine = await lab.engine()
    router = await lab.router(engine)
    raw = await router.connect()
    await raw.send(request_)
    got = Answer(await raw.rest())
    assert (got.status, json.loads(got.body)["error"]["code"]) == (401, "invalid_api_key")
    assert got.headers["www-authenticate"] == "Bearer"
    assert engine.received == []


async def test_everybody_is_served_only_where_that_is_allowed_and_no_key_exists(lab: Lab):
    engine = await lab.engine()
    request = post(CHAT, key="whatever")
    assert (await (await lab.router(engine, clients=Clients({}))).ask(request)).status == 401
    allowed = await lab.router(engine, clients=Clients({}), allow_unauthenticated=True)
    assert (await allowed.ask(request)).status == 200
    assert (await allowed.ask(post(CHAT).replace(b"Authorization", b"X-Not"))).status == 200
    with_keys = await lab.router(engine, allow_unauthenticated=True)
    assert (await with_keys.ask(request)).status == 401


def test_it_does_not_start_without_keys(tmp_path: Path):
    settings = Settings(clients_dir=tmp_path)
    with pytest.raises(server.StartError, match="LARGEFORGE_ALLOW_UNAUTHENTICATED"):
        server.load_clients(settings)
    (tmp_path / "team").write_text("short")
    with pytest.raises(server.StartError):
        server.load_clients(settings)
    assert len(server.load_clients(Settings(clients_dir=tmp_path, allow_unauthenticated=True))) == 0


async def test_keys_are_taken_over_when_the_directory_changes(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "team").write_text(KEY)
    router = await lab.router(await lab.engine(), clients_dir=tmp_path)
    task = asyncio.create_task(server.follow_clients(router.dispatcher, fingerprint(tmp_path), every_seconds=0.01))

    async def status(key: str) -> None:
        raw = await router.connect()
        await raw.send(get(b"/v1/models", key=key))
        return (await raw.answer()).status

    async def becomes(key: str, wanted: int) -> None:
        async with asyncio.timeout(5):
            while await status(key) != wanted:
                pass

    (tmp_path / "lab").write_text(OTHER)
    await becomes(OTHER, 200)
    (tmp_path / "team").unlink()
    await becomes(KEY, 401)
    (tmp_path / "lab").write_text("short")  # all keys wrong: the last ones stay valid
    await until(lambda: "the last keys stay valid" in caplog.text)
    assert await status(OTHER) == 200
    assert KEY not in caplog.text
    assert OTHER not in caplog.text
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
