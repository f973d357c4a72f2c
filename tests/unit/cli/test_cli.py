"""The command line itself: help, completion, and kubectl's port-forward."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.main import get_command

from largeforge.cli.app import app
from largeforge.cli.forward import ForwardError, forwarded
from largeforge.cli.session import Session
from tests.unit.cli.stage import TellingCluster, call, job, service

REPO = Path(__file__).resolve().parents[3]
COMMANDS = sorted(get_command(app).commands)


def test_the_commands_are_those_of_the_document():
    page = (REPO / "docs" / "cli.md").read_text()
    assert sorted(re.findall(r"^## `(\w+)`$", page, re.MULTILINE)) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example_of_itself(command):
    done = call(command, "--help")
    assert done.exit_code == 0
    assert f"Example: kubectl largeforge {command}" in done.stdout


@pytest.mark.parametrize("page", [REPO / "README.md", REPO / "docs/cli.md"], ids=lambda page: page.name)
def test_each_command_line_of_the_documents_can_be_parsed(page):
    calls = re.findall(r"^kubectl largeforge (\w.+)$", page.read_text(), re.MULTILINE)
    assert calls
    for line in calls:
        words = re.findall(r'"[^"]*"|\S+', line.partition("  #")[0])
        arguments = [word.strip('"') for word in words]
        command = get_command(app).commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:], obj=Session())


def completions(*words):
    program = [sys.executable, "-c", "from largeforge.cli.completion import main; main()", *words]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent/config"}
    return subprocess.run(program, env=environ, capture_output=True, text=True, check=False)


def test_kubectl_gets_the_commands_and_options_that_begin_so():
    assert completions("su").stdout.splitlines() == ["suspend", ":4"]
    assert "--key-file" in completions("chat", "--k").stdout.splitlines()


def test_without_a_cluster_no_name_is_completed_and_nothing_is_said():
    done = completions("logs", "")
    assert done.stdout.split() == [":4"]
    assert done.stderr == ""


def test_names_are_completed_from_the_cluster():
    command = get_command(app).commands["suspend"]
    (argument,) = [p for p in command.params if p.name == "named"]
    context = command.make_context("suspend", ["x"], obj=session_of(TellingCluster(job(), service())))
    assert [item.value for item in argument.shell_complete(context, "ftj/")] == ["ftj/sql"]
    assert [item.value for item in argument.shell_complete(context, "")] == ["ftj/sql", "infsvc/qwen"]


def session_of(cluster):
    @asynccontextmanager
    async def connect(_):
        yield cluster

    return Session(connect, lambda _: "team")


def fake_kubectl(folder, script):
    """A program called kubectl that does as *script* (Python) says."""
    path = folder / "kubectl"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


async def test_a_forwarded_port_is_the_one_that_kubectl_names_and_ends_with_its_use(programs):
    script = (
        f"open({str(programs / 'asked')!r}, 'w').write(f'{{os.getpid()}} ' + ' '.join(sys.argv[1:]))\n"
        "print('Forwarding from 127.0.0.1:40123 -> 8080', flush=True)\n"
        "time.sleep(600)"
    )
    fake_kubectl(programs, script)
    async with forwarded("team", "largeforge-router", 80, "east") as port:
        assert port == 40123
    pid, *arguments = (programs / "asked").read_text().split()
    assert " ".join(arguments) == (
        "--context east -n team port-forward --address 127.0.0.1 --pod-running-timeout=10s"
        " service/largeforge-router :80"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_kubectls_last_words_are_the_reason(programs):
    fake_kubectl(programs, "sys.exit('error: services \"x\" not found')")
    with pytest.raises(ForwardError, match='services "x" not found'):
        async with forwarded("team", "x", 80, None):
            pass


async def test_a_service_without_a_pod_is_said_as_such(programs):
    fake_kubectl(programs, "sys.exit('error: timed out waiting for the condition')")
    with pytest.raises(ForwardError, match=r"^none of its pods ran within 10 s$"):
        async with forwarded("team", "x", 80, None):
            pass


async def test_a_machine_without_kubectl_is_said(programs):
    assert not list(programs.iterdir())
    with pytest.raises(ForwardError, match="no kubectl on PATH"):
        async with asyncio.timeout(30), forwarded("team", "x", 80, None):
            pass
