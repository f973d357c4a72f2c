from __future__ import annotations

import asyncio
import json
import logging

import pytest

from largeforge.controllers import logs, workqueue
from largeforge.controllers.logs import JsonLines, TextLines, about
from largeforge.controllers.workqueue import Key, WorkQueue
from largeforge.kube.cluster import ClusterError

CANARIES = (
    "hf_canarycanarycanary",
    "Bearer abcdefgh.canary",
    "https://user:canary@hub.example/x",
    "https://hub.example/x?sig=canary",
    'api_key="canarycanary"',
)


def record(message="said %s", *arguments, exc_info=None):
    return logging.LogRecord("largeforge.test", logging.WARNING, __file__, 1, message, arguments, exc_info)


def line(made):
    return json.loads(JsonLines().format(made))


def test_a_line_is_json_with_the_object_that_is_looked_at():
    with about("FineTuneJob", "team", "sql"):
        inside = line(record("said %s", "it"))
    assert inside | {"time": ""} == {
        "time": "",
        "level": "WARNING",
        "logger": "largeforge.test",
        "message": "said it",
        "kind": "FineTuneJob",
        "namespace": "team",
        "name": "sql",
    }
    assert line(record("said %s", "it")).keys() == {"time", "level", "logger", "message"}


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()], ids=["json", "text"])
def test_no_secret_is_in_a_line_nor_in_a_trace(formatter, canary):
    error = ClusterError(f"refused: {canary}")
    said = formatter.format(record("the answer: %s", canary, exc_info=(ClusterError, error, None)))
    assert "canary" not in said
    assert "ClusterError: refused: " in said


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()], ids=["json", "text"])
def test_a_message_of_several_lines_forges_no_second_one(formatter):
    assert "\n" not in formatter.format(record("said %s", 'x\n{"level": "INFO", "message": "all is well"}'))


async def test_what_the_queue_logs_of_an_object_names_it_and_two_workers_do_not_mix(monkeypatch):
    monkeypatch.setattr(workqueue, "FIRST_BACKOFF", 60.0)
    lines, both = [], asyncio.Barrier(2)

    class Kept(logging.Handler):
        def emit(self, found):
            lines.append(json.loads(JsonLines().format(found)))

    async def reconcile(key):
        await both.wait()
        raise ClusterError(f"about {key.name}") if key.name == "a" else ValueError(f"about {key.name}")

    handler = Kept()
    workqueue.log.addHandler(handler)
    task = asyncio.create_task((queue := WorkQueue("FineTuneJob", reconcile, workers=2)).run())
    try:
        queue.add(Key("team", "a"))
        queue.add(Key("team", "b"))
        async with asyncio.timeout(20):
            while len(lines) < 3:  # noqa: ASYNC110 - a deadline stands above
                await asyncio.sleep(0.001)
    finally:
        workqueue.log.removeHandler(handler)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert {(each["kind"], each["namespace"]) for each in lines} == {("FineTuneJob", "team")}
    assert [each["name"] for each in lines if "about a" in each["message"]] == ["a"]
    (mistake,) = [each for each in lines if "trace" in each]
    assert mistake["name"] == "b"
    assert mistake["trace"].endswith("ValueError: about b")


def test_the_format_is_chosen_by_an_argument(capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    logs.set_up("json")
    logging.getLogger("largeforge.test").warning("said")
    assert json.loads(capsys.readouterr().err)["message"] == "said"
