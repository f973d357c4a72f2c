"""The commands that the pages print, and where each of them is tried."""

import re
from dataclasses import dataclass
from pathlib import Path

from dev import site
from dev.paths import REPO

PAGES = [REPO / page for page in site.pages() if page.parts[0] != "benchmarks"]
"""Those of the benchmarks name their own programs, which `tests/unit/benchmarks` import."""

MAKE = {
    # Each target that a page lets somebody call, and what calls the same.
    "setup": "dev/bootstrap.sh",  # before every other target
    "help": "tests/unit/docs/test_commands.py",
    "demo": "tests/e2e/test_chain.py",  # its steps, one after the other
    "push": "tests/unit/dev/test_images.py",
    "test-unit": ".ci/run",
}
ELSEWHERE = {
    # How a command begins that neither make, nor the plugin's parser, nor an API server tries; and what does.
    "apt-get install -y make git": ".ci/run",  # on a machine that has them
    'eval "$(make -s demo-env)"': "tests/unit/dev/test_demo.py",
    'pipx install "largeforge[cli] @ file://$PWD"': "tests/unit/docs/test_commands.py",
    "kubectl logs": "tests/e2e/runs.py",  # wants a kubelet; the names of Jobs: tests/unit/docs/test_commands.py
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of a page, without its comment."""

    page: Path
    text: str

    @property
    def program(self) -> str:
        """What runs it."""
        return "kubectl largeforge" if self.text.startswith("kubectl largeforge") else self.text.split()[0]


def commands(page: Path) -> list[Command]:
    """Those of *page*, in its order; a line that ends with a backslash goes on."""
    found = []
    for block in re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            text = re.sub(r" {2,}#.*$", "", line).strip()
            if text:
                found.append(Command(page, re.sub(r" {2,}", " ", text)))
    return found


def elsewhere(command: Command) -> str | None:
    """The file that tries it, where it is one of those above."""
    text = re.sub(r" -n \S+", "", command.text)
    return next((at for begin, at in ELSEWHERE.items() if text.startswith(begin)), None)
