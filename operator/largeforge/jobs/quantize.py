"""One step of a QuantizeJob, as PID 1: `python -m largeforge.jobs.quantize [CONFIG]`.

Preflight checks everything and prepares the tokens; Quantize writes one method's smaller model. Exit codes: 0, 64 (a
setting), 65 (data or source), 75 (stopped), 1 (trouble that time may cure).
"""

from __future__ import annotations

import sys
from pathlib import Path

from largeforge.api.quantize import QuantizeConfig, QuantizeResult
from largeforge.jobs import quantizestep
from largeforge.jobs.quantizestep import say


def main(argv: list[str] | None = None) -> int:
    """Do the configured step; return the exit code."""
    return quantizestep.main(argv, prog="largeforge.jobs.quantize", step=step)


def step(path: Path) -> quantizestep.Step:
    """What *path* configures, not yet begun."""
    config = QuantizeConfig.model_validate_json(path.read_bytes())
    return quantizestep.Step(config.stage, config.digest, lambda: run(config))


def run(config: QuantizeConfig) -> QuantizeResult:
    """The result of the step; a `RunError` where there is none."""
    say(f"{config.job} run {config.run}: {config.stage.lower()}")
    if config.stage == "Preflight":
        from largeforge.jobs import quantizepreflight

        return quantizepreflight.check(config)
    from largeforge.jobs import quantizemethod

    return quantizemethod.run(config)


if __name__ == "__main__":
    sys.exit(main())
