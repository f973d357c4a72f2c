"""torchrun, with its workers' exit codes written down: `python -m largeforge.jobs.elastic TORCHRUN-ARGUMENTS`.

torchrun itself ends with 1 whatever its workers ended with. It knows their codes, though: they are in the exception
with which its `main` ends. So this is torchrun's `main`, and a file for the launcher.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from largeforge.jobs import report
from largeforge.jobs.errors import from_exception


def main(arguments: list[str]) -> int:
    """Run torchrun; 0 if all workers ended with 0."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(arguments)
    except ChildFailedError as error:
        seen = report.Seen(
            [report.Failure(rank, failure.exitcode, failure.timestamp) for rank, failure in error.failures.items()]
        )
    except SignalException as error:
        return 128 + int(error.sigval)
    except Exception as error:  # noqa: BLE001 - the launcher tells it; torch has printed the rest
        seen = report.Seen(error=str(from_exception(error)))
    else:
        return 0
    report.write_seen(seen, Path(os.environ[report.STATE_DIR]))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
