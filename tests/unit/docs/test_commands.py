"""Each command that a page prints is tried: by make, by the plugin's parser, by an API server, or where a list says."""

import re
import shlex
import subprocess
import tomllib
from typing import Any

import pytest
import typer

from dev.paths import REPO
from largeforge.cli.app import app
from largeforge.resources.names import preflight_job_name, quantize_job_name, training_job_name
from tests.commands import ELSEWHERE, MAKE, PAGES, Command, commands, elsewhere

COMMANDS = [command for page in PAGES for command in commands(page)]
BY_API_SERVER = {"kubectl", "helm", "export", "cd"}
"""Run by tests/integration/test_commands.py."""


def of(program: str) -> list[Any]:
    return [pytest.param(c, id=f"{c.page.name}: {c.text}") for c in COMMANDS if c.program == program]


def test_no_command_is_tried_nowhere():
    lost = [
        f"{command.page.relative_to(REPO)}: {command.text}"
        for command in COMMANDS
        if elsewhere(command) is None and command.program not in {*BY_API_SERVER, "make", "kubectl largeforge"}
    ]
    assert lost == [], "try it in a test and say so in tests/commands.py, or do not print it"


def test_the_list_of_what_is_tried_elsewhere_has_nothing_that_is_not_printed():
    assert {at for at in map(elsewhere, COMMANDS) if at} == set(ELSEWHERE.values())
    assert [at for at in (*ELSEWHERE.values(), *MAKE.values()) if not (REPO / at).exists()] == []


@pytest.mark.parametrize("command", of("make"))
def test_a_target_that_a_page_calls_is_called_by_something_else_too(command: Command):
    target = next(word for word in command.text.split()[1:] if re.fullmatch(r"[a-z-]+", word))
    assert target in MAKE


def test_make_help_lists_the_targets():
    listed = subprocess.run(["make", "-s", "help"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert set(MAKE) <= set(re.findall(r"make ([a-z0-9-]+)", listed))


@pytest.mark.parametrize("command", of("kubectl largeforge"))
def test_the_plugin_understands_the_command_line(command: Command):
    group: Any = typer.main.get_command(app)
    arguments = shlex.split(command.text)[2:]
    if arguments == ["--help"]:
        return
    name, sub, rest = group.resolve_command(
        group.make_context("kubectl-largeforge", [], resilient_parsing=True), arguments
    )
    assert sub.make_context(name, rest).params


def test_the_package_has_what_pipx_installs():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert "cli" in project["optional-dependencies"]
    assert {"kubectl-largeforge", "kubectl_complete-largeforge"} <= project["scripts"].keys()


def test_the_logs_that_a_page_asks_for_are_of_jobs_as_they_are_named():
    asked = {job for command in COMMANDS for job in re.findall(r"kubectl .*logs -f job/(\S+)", command.text)}
    assert asked == {
        training_job_name("sql-sft", 1, 1),
        quantize_job_name("sql-small", 1, "m1", 1),
        preflight_job_name("chat-from-hub", 1, 1),
    }
