from __future__ import annotations

import json
import logging
import logging.config

import pytest

from largeforge.api.run import TERMINATION_LOG
from largeforge.controllers.enginepods import last_words
from largeforge.resources.enginelogging import engine_logging


@pytest.fixture
def message(tmp_path):
    """The file that the kubelet reads, once logging is configured as in the engine's container."""
    path = tmp_path / "termination-log"
    config = json.loads(engine_logging())
    cause = config["handlers"]["cause"]
    assert cause["filename"] == TERMINATION_LOG
    cause["filename"] = str(path)
    logging.config.dictConfig(config)
    yield path
    for name in config["loggers"]:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_the_cause_of_a_failed_start_is_what_the_kubelet_reads(message):
    cause = ValueError("Found different quantization schemes")
    logging.getLogger("vllm.v1.engine.core").error("EngineCore failed to start.", exc_info=cause)
    assert last_words(message.read_text()) == "ValueError: Found different quantization schemes"


def test_what_a_worker_says_of_its_start_stands_above_what_the_engine_process_says_of_it(message):
    cause, other = ValueError("wrong scheme"), Exception("WorkerProc initialization failed due to an exception")
    logging.getLogger("vllm.v1.executor.multiproc_executor").error("WorkerProc failed to start.", exc_info=cause)
    logging.getLogger("vllm.v1.engine.core").error("EngineCore failed to start.", exc_info=other)
    assert "ValueError: wrong scheme" in last_words(message.read_text())


def test_an_engine_that_logs_no_error_leaves_the_end_of_its_log_to_the_kubelet(message):
    logging.getLogger("vllm.v1.engine.core").info("loading")
    logging.getLogger("vllm.entrypoints.openai.api_server").error("a client went away")
    assert not message.exists()
