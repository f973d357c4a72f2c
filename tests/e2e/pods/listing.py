"""In any image with Python: the entries of a folder on the claim, hidden ones too. The last line is JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    print(json.dumps(sorted(path.name for path in Path(sys.argv[1]).iterdir())))  # noqa: T201 - read from the pod's log
