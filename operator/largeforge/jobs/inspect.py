"""Look at a model or an adapter without loading it: `python -m largeforge.jobs.inspect`, PID 1.

The question is in the environment, the answer is the termination message. Exit codes: 0, 64 and 65 (what another try
cannot cure), 75 (stopped), 1 (trouble that time may cure).
"""

from __future__ import annotations

import sys
from pathlib import Path

from largeforge.api.common import ErrorDetail
from largeforge.api.inspect import InspectConfig, InspectResult, ModelFacts
from largeforge.api.run import ModelSource
from largeforge.jobs import architecture, errand, hub, hubheaders, modelfacts
from largeforge.jobs.adapterfacts import adapter_facts
from largeforge.jobs.artifacterrors import NotAnAdapterError, WeightsDamagedError
from largeforge.jobs.folders import Folder
from largeforge.jobs.modelfacts import Resolve, Weights, chosen_weights, described, model_facts
from largeforge.jobs.weights import HeaderError


def main(arguments: list[str] | None = None) -> int:
    """Answer the question of this process; return the exit code."""
    return errand.run(errand.Errand("inspect", InspectConfig, answer, failed), arguments)


def answer(config: InspectConfig, *, resolve: Resolve = architecture.resolved) -> InspectResult:
    """The facts; a `RunError` says why there are none."""
    source, request = config.source, config.request
    errand.say(f"looking at {source.uri}")
    if config.expect == "Adapter":
        adapter = adapter_facts(Folder(Path(source.path or ""), source.uri, source.field, NotAnAdapterError))
        found = adapter.model_copy(update={"request": request})
        return InspectResult(outcome="Succeeded", request=request, adapter=found)
    if source.path is not None:
        folder = Folder(Path(source.path), source.uri, source.field)
        model = model_facts(folder, trusted=source.trust_remote_code, resolve=resolve)
    else:
        model = _of_hub(source, config.cache_path, resolve)
    return InspectResult(outcome="Succeeded", request=request, model=model.model_copy(update={"request": request}))


def _of_hub(source: ModelSource, cache: str | None, resolve: Resolve) -> ModelFacts:
    commit = hub.commit_of(hub.repository(source, cache))
    repo = hub.repository(source.model_copy(update={"commit": commit}), cache)
    path, names = hubheaders.small_files(repo)
    folder = Folder(path, source.uri, source.field, root=path.parents[1])
    modelfacts.check_files(folder, names, trusted=source.trust_remote_code)
    if cache is not None:
        hub.fetch_model(repo, say=errand.say, trust_remote_code=source.trust_remote_code)
        return model_facts(folder, trusted=source.trust_remote_code, commit=commit, resolve=resolve)
    chosen = chosen_weights(folder, names)
    try:
        tensors = hubheaders.tensors(repo, chosen, names)
    except HeaderError as error:
        raise folder.wrong(f"{error}; choose another revision", WeightsDamagedError) from None
    facts = described(folder, names, Weights(tensors, commit), resolve=resolve)
    return facts.model_copy(update={"commit": commit, "size_bytes": sum(names[name] for name in chosen)})


def failed(config: InspectConfig | None, error: ErrorDetail) -> InspectResult:
    """The answer that there is none."""
    return InspectResult(outcome="Failed", request=config.request if config is not None else "", error=error)


if __name__ == "__main__":
    sys.exit(main())
