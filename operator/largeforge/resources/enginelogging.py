"""How the engine that evaluates logs: as ever, and the cause of a failed start also where the kubelet reads it.

Its first process ends with a traceback of its own, which is longer than what the kubelet keeps of a log and says only
that another process has failed. What that one logs as its error is the cause.
"""

from __future__ import annotations

import json

from largeforge.api.run import TERMINATION_LOG

FILE = "engine-logging.json"
PATH = f"/etc/largeforge/{FILE}"
VARIABLE = "VLLM_LOGGING_CONFIG_PATH"
_CAUSES = ("vllm.v1.engine.core", "vllm.v1.executor.multiproc_executor")
"""The loggers of the process that loads the model, and of those beside it on more than one GPU (vLLM 0.32)."""


def engine_logging() -> str:
    """JSON for `logging.config.dictConfig`; it takes the place of vLLM's own."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"format": "%(levelname)s %(asctime)s [%(name)s] %(message)s"},
            "cause": {"format": "%(message)s"},
        },
        "handlers": {
            "log": {"class": "logging.StreamHandler", "formatter": "line"},
            "cause": {
                "class": "logging.FileHandler",
                "filename": TERMINATION_LOG,
                "formatter": "cause",
                "level": "ERROR",
                "delay": True,
            },
        },
        "loggers": {
            "vllm": {"handlers": ["log"], "level": "INFO", "propagate": False},
            **{name: {"handlers": ["cause"], "propagate": True} for name in _CAUSES},
        },
    }
    return json.dumps(config, indent=2) + "\n"
