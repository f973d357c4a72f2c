"""The client against a server on the loopback that answers as the test says."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from largeforge.kube import transport, watch
from largeforge.kube.client import connect
from largeforge.kube.cluster import JOBS, PODS, SECRETS, ClusterError, Conflict, Invalid

OWNER = {"controller": True, "uid": "owner", "apiVersion": "v1", "kind": "X", "name": "x"}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "a", "namespace": "team", "ownerReferences": [OWNER]},
}


def answer(body, *, code=200, **headers):
    async def respond(_):
        return web.json_response(body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return respond


def status(code, message="no", **fields):
    return answer({"kind": "Status", "code": code, "message": message} | fields, code=code)


class Server:
    """Answers requests from a list, in turn; the last answer stays. Notes what was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def handle(self, request):
        self.asked.append((request.method, request.path, dict(request.query), await request.text(), request.headers))
        respond = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await respond(request)


@asynccontextmanager
async def served(server, tmp_path, monkeypatch):
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
        "users": [{"name": "u", "user": {"token": "a-token"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    try:
        async with connect() as cluster:
            yield cluster
    finally:
        await runner.cleanup()


@pytest.fixture
def serving(tmp_path, monkeypatch):
    return lambda server: served(server, tmp_path, monkeypatch)


async def test_get_names_the_object_and_carries_the_token(serving):
    server = Server(answer(JOB))
    async with serving(server) as cluster:
        assert await cluster.get(JOBS, "team", "a") == JOB
    method, path, _, _, headers = server.asked[0]
    assert (method, path) == ("GET", "/apis/batch/v1/namespaces/team/jobs/a")
    assert headers["Authorization"] == "Bearer a-token"
    assert headers["User-Agent"] == "largeforge"


async def test_a_document_is_asked_for_by_its_path_and_may_be_a_set_of_keys(serving):
    server = Server(answer({"keys": []}))
    async with serving(server) as cluster:
        assert await cluster.document("/openid/v1/jwks") == {"keys": []}
    method, path, _, _, headers = server.asked[0]
    assert (method, path) == ("GET", "/openid/v1/jwks")
    assert headers["Accept"] == "application/json, application/jwk-set+json"


async def test_a_status_is_applied_under_the_manager_that_is_named_and_the_object_comes_back(serving):
    server = Server(answer(JOB), status(404))
    finetunejob = {
        "apiVersion": "largeforge.ai/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a", "namespace": "team"},
        "status": {"metrics": []},
    }
    async with serving(server) as cluster:
        assert await cluster.patch_status(finetunejob, manager="largeforge-progress") == JOB
        assert await cluster.patch_status(finetunejob) is None
    paths = {(a[1], a[2]["fieldManager"]) for a in server.asked}
    path = "/apis/largeforge.ai/v1alpha1/namespaces/team/finetunejobs/a/status"
    assert paths == {(path, "largeforge-progress"), (path, "largeforge")}


async def test_what_is_not_there_is_none(serving):
    async with serving(Server(status(404))) as cluster:
        assert await cluster.get(PODS, "team", "a") is None
        await cluster.delete(PODS, "team", "a", uid="u")
        await cluster.patch_status(JOB | {"status": {}})


async def test_a_list_is_read_to_its_last_page_and_its_items_say_what_they_are(serving):
    def page(name, after):
        items = [{"metadata": {"name": name}}]
        return answer({"kind": "JobList", "metadata": {"continue": after, "resourceVersion": "5"}, "items": items})

    server = Server(page("a", "next"), page("b", ""))
    async with serving(server) as cluster:
        found = await cluster.list(JOBS, "", labels={"x": "1", "a": "2"})
    assert [(f["kind"], f["apiVersion"], f["metadata"]["name"]) for f in found] == [
        ("Job", "batch/v1", "a"),
        ("Job", "batch/v1", "b"),
    ]
    assert server.asked[0][1] == "/apis/batch/v1/jobs"
    assert server.asked[0][2] == {"limit": "500", "labelSelector": "a=2,x=1"}
    assert server.asked[1][2]["continue"] == "next"


async def test_apply_is_server_side(serving):
    server = Server(answer(JOB))
    async with serving(server) as cluster:
        await cluster.apply(JOB, manager="largeforge-publish", force=False)
        await cluster.patch_status(JOB | {"status": {"phase": "x"}})
    method, path, query, body, headers = server.asked[0]
    assert (method, path) == ("PATCH", "/apis/batch/v1/namespaces/team/jobs/a")
    assert query == {"fieldManager": "largeforge-publish", "force": "false"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert json.loads(body) == JOB
    assert server.asked[1][1].endswith("/jobs/a/status")
    assert server.asked[1][2] == {"fieldManager": "largeforge", "force": "true"}


async def test_create_once_takes_what_is_ours_and_nothing_else(serving):
    theirs = JOB | {"metadata": JOB["metadata"] | {"ownerReferences": [OWNER | {"uid": "other"}]}}
    async with serving(Server(answer(JOB, code=201))) as cluster:
        assert await cluster.create_once(JOB) == JOB
    async with serving(Server(status(409), answer(JOB))) as cluster:
        assert await cluster.create_once(JOB) is None
    async with serving(Server(status(409), answer(theirs))) as cluster:
        with pytest.raises(Conflict, match="belongs to another object"):
            await cluster.create_once(JOB)


async def test_a_secret_that_exists_is_never_read(serving):
    server = Server(status(409))
    async with serving(server) as cluster:
        secret = JOB | {"apiVersion": "v1", "kind": "Secret"}
        assert await cluster.create_once(secret) is None
    assert [(a[0], a[1]) for a in server.asked] == [("POST", f"/api/v1/namespaces/team/{SECRETS.plural}")]


async def test_a_delete_names_the_uid_and_takes_another_one_for_gone(serving):
    server = Server(status(409, "the UID in the precondition (u) does not match"))
    async with serving(server) as cluster:
        await cluster.delete(JOBS, "team", "a", uid="u")
    assert json.loads(server.asked[0][3]) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u"},
        "propagationPolicy": "Background",
    }


@pytest.mark.parametrize(
    ("code", "fields", "kind"),
    [
        (409, {}, Conflict),
        (422, {}, Invalid),
        (400, {}, Invalid),
        (403, {"message": 'pods "x" is forbidden: violates PodSecurity "restricted"'}, Invalid),
        (403, {"message": 'jobs is forbidden: User "system:x" cannot create resource "jobs"'}, ClusterError),
        (
            403,
            {"message": "being terminated", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
            ClusterError,
        ),
        (500, {}, ClusterError),
        (401, {}, ClusterError),
    ],
)
async def test_refusals_are_told_apart(serving, code, fields, kind):
    async with serving(Server(status(code, **fields))) as cluster:
        with pytest.raises(ClusterError) as caught:
            await cluster.apply(JOB)
    assert type(caught.value) is kind
    assert fields.get("message", "no") in str(caught.value)


async def test_a_busy_server_is_asked_again_when_it_says(serving, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(transport.asyncio, "sleep", sleep)
    busy = [answer({}, code=429, Retry_After=after) for after in ("3", "900")]
    async with serving(Server(*busy, answer({}, code=503), answer(JOB))) as cluster:
        with pytest.raises(ClusterError):
            await cluster.get(JOBS, "team", "a")
    assert [s for s in slept if s] == [3.0, 30.0]


async def test_a_server_that_is_not_there_is_a_cluster_error(serving):
    async with serving(Server(status(404))) as cluster:
        pass
    async with serving(Server(status(404))) as cluster:
        cluster._transport._configuration.host = "http://127.0.0.1:1"
        with pytest.raises(ClusterError, match="GET /api/v1/namespaces/team/pods/a"):
            await cluster.get(PODS, "team", "a")


async def test_a_server_that_does_not_answer_is_a_cluster_error(serving, monkeypatch):
    monkeypatch.setattr(transport, "REQUEST_SECONDS", 0.05)

    async def never(_):
        await asyncio.sleep(0.5)

    async with serving(Server(never)) as cluster:
        with pytest.raises(ClusterError, match="no answer"):
            await cluster.get(PODS, "team", "a")


async def test_no_credentials_say_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="set KUBECONFIG"):
        async with connect():
            pass


# Watches


def pod(name, version, uid="u"):
    return {"metadata": {"name": name, "namespace": "team", "uid": f"{uid}-{name}", "resourceVersion": version}}


def listed(version, *pods):
    return answer({"kind": "PodList", "metadata": {"resourceVersion": version}, "items": list(pods)})


def streamed(*events, then="end"):
    async def respond(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for kind, manifest in events:
            await response.write(json.dumps({"type": kind, "object": manifest}).encode() + b"\n")
        if then == "hang":
            await asyncio.sleep(2)
        if then == "cut":
            request.transport.close()
        return response

    return respond


async def take(cluster, count):
    found = []
    async with asyncio.timeout(5):
        async for event in cluster.watch(PODS, "team"):
            found.append((event.type, event.object.get("metadata", {}).get("name")))
            if len(found) == count:
                return found
    return found


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "RECONNECT_FIRST", 0.001)
    monkeypatch.setattr(watch, "RECONNECT_LAST", 0.01)


async def test_a_watch_lists_and_then_follows(serving):
    server = Server(
        listed("5", pod("a", "1")), streamed(("ADDED", pod("b", "6")), ("DELETED", pod("a", "7")), then="hang")
    )
    async with serving(server) as cluster:
        assert await take(cluster, 4) == [("ADDED", "a"), ("SYNCED", None), ("ADDED", "b"), ("DELETED", "a")]
    query = server.asked[1][2]
    assert (query["resourceVersion"], query["allowWatchBookmarks"], query["watch"]) == ("5", "true", "true")


async def test_a_watch_that_ends_goes_on_from_the_last_bookmark(serving):
    server = Server(listed("5"), streamed(("BOOKMARK", pod("", "9"))), streamed(("ADDED", pod("b", "10")), then="hang"))
    async with serving(server) as cluster:
        assert await take(cluster, 2) == [("SYNCED", None), ("ADDED", "b")]
    assert server.asked[2][2]["resourceVersion"] == "9"


@pytest.mark.usefixtures("impatient")
async def test_a_watch_that_is_cut_off_connects_again(serving):
    server = Server(
        listed("5"), streamed(("ADDED", pod("a", "6")), then="cut"), streamed(("ADDED", pod("b", "7")), then="hang")
    )
    async with serving(server) as cluster:
        assert await take(cluster, 3) == [("SYNCED", None), ("ADDED", "a"), ("ADDED", "b")]
    assert server.asked[2][2]["resourceVersion"] == "6"


@pytest.mark.parametrize(
    "expired", [status(410), streamed(("ERROR", {"kind": "Status", "code": 410, "message": "too old"}))]
)
@pytest.mark.usefixtures("impatient")
async def test_after_a_410_it_lists_again_and_says_what_is_gone(serving, expired):
    server = Server(
        listed("5", pod("a", "1"), pod("b", "2"), pod("c", "3"), pod("d", "4")),
        expired,
        listed("9", pod("a", "1"), pod("b", "8"), pod("c", "7", uid="new")),
        streamed(then="hang"),
    )
    async with serving(server) as cluster:
        assert (await take(cluster, 10))[5:] == [
            ("MODIFIED", "b"),
            ("DELETED", "c"),
            ("ADDED", "c"),
            ("DELETED", "d"),
            ("SYNCED", None),
        ]


@pytest.mark.usefixtures("impatient")
async def test_a_silent_watch_lists_again(serving, monkeypatch):
    monkeypatch.setattr(watch, "SILENCE_SECONDS", 0.05)
    server = Server(listed("5", pod("a", "1")), streamed(then="hang"), listed("6"), streamed(then="hang"))
    async with serving(server) as cluster:
        assert await take(cluster, 4) == [("ADDED", "a"), ("SYNCED", None), ("DELETED", "a"), ("SYNCED", None)]


@pytest.mark.usefixtures("impatient")
async def test_a_watch_outlives_an_outage(serving):
    server = Server(status(500), status(403), listed("5"), status(503), streamed(("ADDED", pod("a", "6")), then="hang"))
    async with serving(server) as cluster:
        assert await take(cluster, 2) == [("SYNCED", None), ("ADDED", "a")]


def pieces(*data):
    async def respond(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in data:
            await response.write(piece)
        return response

    return respond


async def test_a_log_is_its_lines_however_it_comes(serving):
    long = "x" * 300_000
    data = f"one\ntwo ü\n\n{long}\nlast".encode()
    cut = data.index("ü".encode()) + 1
    server = Server(pieces(data[:2], data[2:cut], data[cut:]))
    async with serving(server) as cluster:
        lines = [line async for line in cluster.log("team", "a", "trainer", follow=True, tail=5)]
    assert lines == ["one", "two ü", "", long, "last"]
    ((_, path, query, _, headers),) = server.asked
    assert path == "/api/v1/namespaces/team/pods/a/log"
    assert query == {"container": "trainer", "follow": "true", "tailLines": "5"}
    assert headers["Authorization"] == "Bearer a-token"


async def test_a_log_that_is_refused_is_the_servers_words(serving):
    async with serving(Server(status(403, 'pods "a" is forbidden: User "u" cannot get'))) as cluster:
        with pytest.raises(ClusterError, match="403: pods"):
            [line async for line in cluster.log("team", "a", "trainer")]


def contexts(tmp_path, monkeypatch, *names):
    made = [{"name": n, "context": {"cluster": "c", "user": "u"} | more} for n, more in names]
    config = {"apiVersion": "v1", "kind": "Config", "current-context": names[0][0], "contexts": made}
    config |= {"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}]}
    config |= {"users": [{"name": "u", "user": {"token": "t"}}]}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


def test_the_default_namespace_is_that_of_the_context(tmp_path, monkeypatch):
    contexts(tmp_path, monkeypatch, ("a", {"namespace": "team"}), ("b", {}))
    assert transport.default_namespace() == "team"
    assert transport.default_namespace("b") == "default"
    with pytest.raises(ClusterError, match=r"no context 'c' in .*kubeconfig"):
        transport.default_namespace("c")


async def test_a_context_that_is_not_there_is_no_credentials(tmp_path, monkeypatch):
    contexts(tmp_path, monkeypatch, ("a", {}))
    with pytest.raises(ClusterError, match="no credentials for a cluster"):
        async with connect(context="c"):
            pass
