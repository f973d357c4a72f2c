"""`docs/reasons.md`: what the operator and its Jobs say, in one word or number each; `make generate` writes it."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from dev.paths import REPO
from largeforge.api.names import ExitCode, Reason
from largeforge.controllers import failures, faults, transitions
from largeforge.jobs.errors import RunError

PAGE = REPO / "docs" / "reasons.md"
TROUBLESHOOTING = REPO / "docs" / "troubleshooting.md"
_PACKAGE = REPO / "operator" / "largeforge"

_HEAD = """\
<!-- Generated from the code and docs/troubleshooting.md by `make generate`. Change these instead. -->
# Reasons, Events, exit codes

The words and numbers by which programs can tell what happened. [Troubleshooting](troubleshooting.md) says what to
do about each.

## Reasons

`status.conditions[].reason`, and of jobs also `status.error.reason`. The exit code is that of the container that
found the cause itself.
"""

_EVENTS = """
## Events

Each transition is one Event of the object (`events.k8s.io/v1`, `reportingController: largeforge.ai/operator`,
`action: Reconcile`), never one for each step; a repeated pass posts none twice. `kubectl describe` shows them, and

```sh
kubectl -n NAMESPACE get events --field-selector involvedObject.name=NAME
```

Of a FineTuneJob or QuantizeJob:

| reason | type | when |
| --- | --- | --- |
"""

_EVENT_RULES = """\
| that of the cause | Warning | a run failed, a method of a QuantizeJob came to nothing, or the gate blocked a result |
| that of the condition | Warning | {conditions} turned False; not for {calm}, which are no fault |

Of an InferenceService or Expert: one when `Ready` gets another status or reason, with that reason; Normal when it
became True, else Warning. One wait after another of an object that is not ready ({waits}) is no Event.
"""

_CODES = """
## Exit codes

Of the container `trainer` of a FineTuneJob, `quantizer` of a QuantizeJob, and `errand` of a Job that looks at files
or copies them; the next attempt is that of a run.

| code | means | next attempt |
| --- | --- | --- |
"""

_NEXT = {"No next attempt.": "none", "The next attempt is not counted.": "yes, not counted"}
_CLI = """
Of `kubectl largeforge`: 0; 1 after an error, one line on stderr; 2 where the command line is wrong; 130 after Ctrl-C.
"""


def reasons() -> dict[str, str]:
    """The name of each constant and its value."""
    return {name: value for name, value in vars(Reason).items() if name.isupper()}


def entries() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The parts of the troubleshooting page: their headings, and of each the reasons with their first sentence."""
    for part in re.split(r"^## ", TROUBLESHOOTING.read_text(), flags=re.MULTILINE)[1:]:
        found = re.findall(r"^### `(\w+)`\n\n(.*?)(?=\n\n|\Z)", part, re.MULTILINE | re.DOTALL)
        if found:
            yield part.partition("\n")[0], [(reason, _first_sentence(text)) for reason, text in found]


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.])\s+(?=[A-Z«`])", " ".join(text.split()))[0]


def exit_codes() -> dict[str, set[int]]:
    """Which codes a pod ends with that has found the cause itself, by reason."""
    codes: dict[str, set[int]] = defaultdict(set)
    for path in sorted((_PACKAGE / "jobs").glob("*.py")):
        if re.search(r"^    reason = ", path.read_text(), re.MULTILINE):
            module = importlib.import_module(f"largeforge.jobs.{path.stem}")
            for error in vars(module).values():
                if isinstance(error, type) and issubclass(error, RunError):
                    codes[error.reason].add(int(error.exit_code))
    return codes


def events() -> dict[str, set[str]]:
    """The types of the Events whose reason is a constant where they are made."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((_PACKAGE / "controllers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="Event"),
                    args=[ast.Attribute(value=ast.Name(id="Reason"), attr=name), _, *rest],
                ):
                    kind = rest[0].value if rest and isinstance(rest[0], ast.Constant) else "Normal"
                    found[reasons()[name]].add(str(kind))
    return found


def _docstrings() -> Iterator[tuple[int, str]]:
    """The constants of `ExitCode`, each with what stands below it."""
    tree = ast.parse((_PACKAGE / "api" / "names.py").read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == ExitCode.__name__)
    for constant, below in pairwise(body):
        match constant, below:
            case (
                ast.Assign(value=ast.Constant(value=int(code))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield code, " ".join(text.split())


def _code_rows() -> Iterator[str]:
    yield "| 0 | done; of preflight: training may begin | |"
    yield "| 1, or another | what time may cure: a hub that does not answer, a full disk, a crash | yes, counted |"
    for code, text in _docstrings():
        meaning, _, following = text.rpartition(". ")
        yield f"| {code} | {meaning} | {_NEXT[following]} |"
    killed = f"SIGKILL, most likely for its memory (`{Reason.OUT_OF_MEMORY}`)"
    yield f"| {failures.OUT_OF_MEMORY_CODE} | {killed} | yes, counted |"
    taken = "yes; not counted where the cluster says that it took the pod"
    yield f"| 143 | SIGTERM before there was a whole checkpoint | {taken} |"


def render() -> str:
    """The whole page."""
    codes, said = exit_codes(), dict(events())
    lines = [_HEAD]
    meanings: dict[str, str] = {}
    for heading, rows in entries():
        lines += [f"### {heading}", "", "| reason | says | exit code |", "| --- | --- | --- |"]
        for reason, sentence in rows:
            meanings[reason] = sentence
            own = ", ".join(map(str, sorted(codes.get(reason, ()))))
            lines.append(f"| {_link(reason)} | {_cell(sentence)} | {own} |")
        lines.append("")
    text = "\n".join(lines) + _EVENTS
    for reason, kinds in said.items():
        text += f"| {_link(reason)} | {', '.join(sorted(kinds))} | {_cell(meanings[reason])} |\n"
    text += _EVENT_RULES.format(
        conditions=_list(faults.CONDITIONS), calm=_list(sorted(faults.CALM)), waits=_list(sorted(transitions.CALM))
    )
    return text + _CODES + "\n".join(_code_rows()) + "\n" + _CLI


def _link(reason: str) -> str:
    return f"[`{reason}`](troubleshooting.md#{reason.lower()})"


def _list(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def main() -> None:
    PAGE.write_text(render())


if __name__ == "__main__":
    main()
