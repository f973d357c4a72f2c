"""chat and route: against a router on loopback."""

import json
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from largeforge.cli.forward import ForwardError
from tests.unit.cli.stage import KEY, TellingCluster, call, refusal, router, stream

ROUTE = {
    "object": "largeforge.route",
    "expert": "sql",
    "reason": "hybrid",
    "score": 0.9,
    "runner_up": "letters",
    "embedding": "used",
    "fallback": "general",
    "scores": [
        {"expert": "sql", "score": 0.9, "total": 1.2, "threshold": 0.6, "parts": {"keyword": 1.0, "examples": 0.71}},
        {"expert": "letters", "score": 0.2, "total": 0.2, "threshold": 0.6, "parts": {"keyword": 0, "examples": 0.2}},
    ],
    "ignored": [{"expert": "poetry", "why": "it is not ready: NoAdapterStore"}],
}


def routed(_path, _body):
    return 200, {}, json.dumps(ROUTE).encode()


def router_service(*, port=80, name="largeforge-router", port_name="http", labels=None):
    both = {"app.kubernetes.io/part-of": "largeforge", "app.kubernetes.io/component": "router"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "team", "labels": both | (labels or {})},
        "spec": {"ports": [{"name": port_name, "port": port}]},
    }


def test_an_answer_streams_to_stdout_after_who_gives_it_and_why():
    with router(lambda *_: stream("SELECT ", "1;")) as server:
        done = call("chat", "one, please", "--router", server.url + "/v1", environ={"LARGEFORGE_API_KEY": KEY})
    assert (done.exit_code, done.stdout) == (0, "SELECT 1;\n")
    assert done.stderr == "sql (keyword, 0.90)\n"
    ((path, authorization, body),) = server.asked
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body == {"model": "auto", "messages": [{"role": "user", "content": "one, please"}], "stream": True}


def test_who_reads_no_further_ends_the_command_without_a_word():
    with router(lambda *_: stream(*["many words, " * 100] * 500)) as server:
        program = [sys.executable, "-m", "largeforge.cli", "chat", "q", "--router", server.url]
        asked = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"HOME": "/nonexistent"})
        with asked:
            assert asked.stdout.read(4) == b"many"
            asked.stdout.close()
            assert asked.stderr.read() == b"sql (keyword, 0.90)\n"
    assert asked.returncode == 1


def test_a_pinned_expert_and_a_limit_go_with_the_question():
    with router(lambda *_: stream("x")) as server:
        call("chat", "q", "-m", "letters", "--max-tokens", "7", "--router", server.url)
    assert (server.asked[0][2]["model"], server.asked[0][2]["max_tokens"]) == ("letters", 7)


def test_lines_of_stdin_are_one_conversation():
    with router(lambda *_: stream("yes")) as server:
        done = call("chat", "--router", server.url, stdin="first\n\nsecond\n")
    assert done.stdout == "yes\nyes\n"
    assert server.asked[1][2]["messages"] == [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "second"},
    ]


def test_an_answer_that_breaks_off_is_no_success():
    with router(lambda *_: stream("SELECT ", whole=False)) as server:
        done = call("chat", "q", "--router", server.url)
    assert done.exit_code == 1
    assert "broke off before its end" in done.stderr


def test_a_wrong_key_is_said_with_the_variable_and_is_not_shown():
    with router(lambda *_: refusal(401, "invalid API key")) as server:
        done = call("chat", "q", "--router", server.url, environ={"LARGEFORGE_API_KEY": KEY})
    assert done.exit_code == 1
    assert "does not take this key: invalid API key; set LARGEFORGE_API_KEY" in done.stderr
    assert KEY not in done.output


def test_the_routers_own_words_are_handed_on():
    with router(lambda *_: refusal(404, "no ready expert named 'poetry'; see GET /v1/models")) as server:
        done = call("chat", "q", "-m", "poetry", "--router", server.url)
    assert done.stderr == "error: the router answers 404: no ready expert named 'poetry'; see GET /v1/models\n"


def test_an_address_where_nobody_listens_is_named():
    with router(routed) as server:
        pass
    done = call("route", "q", "--router", server.url)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: no router at {server.url}: ")


@pytest.mark.parametrize("answer", [(404, {}, b"<html>"), (200, {}, b'{"object": "list"}')])
def test_another_server_is_not_taken_for_a_router(answer):
    with router(lambda *_: answer) as server:
        done = call("route", "q", "--router", server.url)
    assert done.exit_code == 1
    assert "is no LargeForge router" in done.stderr


def test_an_address_without_a_scheme_is_refused():
    done = call("route", "q", "--router", "localhost:8080")
    assert done.stderr == (
        "error: --router localhost:8080: begin with http:// or https://, for example http://localhost:8080\n"
    )


def test_the_address_and_the_key_of_openais_clients_are_taken_and_ours_come_first(tmp_path):
    with router(routed) as server, router(routed) as other:
        environ = {"OPENAI_BASE_URL": server.url + "/v1", "OPENAI_API_KEY": KEY}
        assert call("route", "q", environ=environ).exit_code == 0
        environ |= {"LARGEFORGE_ROUTER": other.url, "LARGEFORGE_API_KEY": "another-key-of-ours"}
        assert call("route", "q", environ=environ).exit_code == 0
        (tmp_path / "key").write_text("a-key-in-a-file-of-its-own\n")
        assert call("route", "q", "--key-file", str(tmp_path / "key"), environ=environ).exit_code == 0
    assert [key for _, key, _ in server.asked] == [f"Bearer {KEY}"]
    assert [key for _, key, _ in other.asked] == ["Bearer another-key-of-ours", "Bearer a-key-in-a-file-of-its-own"]


def test_a_key_that_no_header_can_hold_is_refused_and_not_shown():
    done = call("route", "q", "--router", "http://127.0.0.1:9", environ={"LARGEFORGE_API_KEY": "two\nlines-of-a-key"})
    assert done.exit_code == 1
    assert "no header can hold" in done.stderr
    assert "lines-of-a-key" not in done.output


def test_a_key_file_that_is_not_there_is_named(tmp_path):
    done = call("route", "q", "--router", "http://127.0.0.1:9", "--key-file", str(tmp_path / "none"))
    assert done.exit_code == 1
    assert f"--key-file {tmp_path / 'none'}: " in done.stderr


def test_without_an_address_the_namespaces_router_is_reached_through_the_api_server():
    report = router_service(name="largeforge-report", labels={"largeforge.ai/router": "largeforge"})
    asked = []
    with router(routed) as server:

        @asynccontextmanager
        async def forward(*arguments):
            asked.append(arguments)
            yield server.server_port

        done = call("route", "q", cluster=TellingCluster(report, router_service()), forward=forward)
    assert done.exit_code == 0, done.output
    assert asked == [("team", "largeforge-router", 80, None)]


def test_a_namespace_without_a_router_or_with_two_is_said():
    done = call("route", "q", cluster=TellingCluster())
    assert done.stderr == (
        "error: no router in namespace 'team'; name the namespace of one with -n, or its address with --router\n"
    )
    done = call("route", "q", cluster=TellingCluster(router_service(), router_service(name="b")))
    assert "several routers in namespace 'team': b, largeforge-router" in done.stderr


def test_a_port_that_cannot_be_forwarded_is_said_with_the_other_way():
    @asynccontextmanager
    async def forward(*_):
        raise ForwardError("pods is forbidden")
        yield

    done = call("route", "q", cluster=TellingCluster(router_service()), forward=forward)
    assert done.exit_code == 1
    assert "pods is forbidden; give the router's address with --router" in done.stderr


def test_a_route_is_explained_by_the_scores_of_each_expert():
    with router(routed) as server:
        done = call("route", "Write a SQL query", "--router", server.url)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["sql", "(hybrid,", "0.90);", "next:", "letters"],
        ["embedding:", "used;", "fallback:", "general"],
        [],
        ["EXPERT", "SCORE", "THRESHOLD", "KEYWORD", "EXAMPLES"],
        ["sql", "0.90", "0.60", "1.00", "0.71"],
        ["letters", "0.20", "0.60", "0.00", "0.20"],
        ["ignored", "poetry:", "it", "is", "not", "ready:", "NoAdapterStore"],
    ]
    assert server.asked[0][2] == {"model": "auto", "messages": [{"role": "user", "content": "Write a SQL query"}]}


def test_json_is_the_routers_own_account():
    with router(routed) as server:
        assert json.loads(call("route", "q", "-o", "json", "--router", server.url).stdout) == ROUTE
