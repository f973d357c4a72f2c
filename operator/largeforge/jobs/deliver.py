"""Copy an adapter into a service's store, or remove a folder of one: `python -m largeforge.jobs.deliver`, PID 1.

The question is in the environment, the answer is the termination message. Exit codes: 0, 64 and 65 (what another try
cannot cure), 75 (stopped), 1 (trouble that time may cure).
"""

from __future__ import annotations

import sys
from pathlib import Path

from largeforge.api.common import ErrorDetail
from largeforge.api.deliver import DeliverConfig, DeliverResult
from largeforge.jobs import delivery, errand, removal
from largeforge.jobs.artifacterrors import NotAnAdapterError
from largeforge.jobs.folders import Folder


def main(arguments: list[str] | None = None) -> int:
    """Do what this process is asked; return the exit code."""
    return errand.run(errand.Errand("deliver", DeliverConfig, answer, failed), arguments)


def answer(config: DeliverConfig) -> DeliverResult:
    """Do it; a `RunError` says why it could not be done."""
    target = delivery.Target(Path(config.target_path), config.target_name, config.target_uri)
    if config.action == "Remove":
        errand.say(f"removing {config.target_uri}")
        gone = not removal.remove(target, digest=config.digest, field=config.field)
        return DeliverResult(outcome="Succeeded", request=config.request, uri=config.target_uri, adopted=gone)
    errand.say(f"copying {config.source_uri} to {config.target_uri}")
    source = Folder(Path(config.source_path), config.source_uri, config.field, NotAnAdapterError)
    size, adopted = delivery.deliver(source, target, digest=config.digest, attempt=config.request[:8])
    return DeliverResult(
        outcome="Succeeded", request=config.request, uri=config.target_uri, size_bytes=size, adopted=adopted
    )


def failed(config: DeliverConfig | None, error: ErrorDetail) -> DeliverResult:
    """The answer that it was not done."""
    return DeliverResult(outcome="Failed", request=config.request if config is not None else "", error=error)


if __name__ == "__main__":
    sys.exit(main())
