"""The artifact's files, written by the first rank from what all ranks gathered. Torch is imported inside."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from largeforge.api.finetunejobstatus import ArtifactRecord, ProbeRecord
from largeforge.api.run import ResolvedSources, RunConfig, RunResult
from largeforge.api.uri import parse_pvc
from largeforge.jobs import artifact, basemodel, card, datareport, plot, strategy, tracking, weights, whole
from largeforge.jobs.models import ADAPTER_CONFIG, Base

PREFLIGHT_REPORT = "preflight.json"
"""The report's name in the artifact."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What there is to write."""

    trainer: Any
    state: Any
    """The gathered weights under FSDP or where all weights were trained, else None."""
    probes: list[ProbeRecord]
    checkpoints: Path


def gather(trainer: Any, config: RunConfig) -> Any:
    """The trained weights on the first rank, where they cannot be read from its model alone; all ranks take part."""
    strategy.reshard(trainer)
    if trainer.is_fsdp_enabled or config.lora is None:
        return trainer.accelerator.get_state_dict(trainer.model)
    return None


def fill(config: RunConfig, base: Base, trained: Trained, folder: Path, result: RunResult) -> RunResult:
    """Write the artifact into *folder*; return *result* with its record."""
    adapter = config.lora is not None and not config.merge
    if config.lora is None:
        whole.write(base, trained.state, folder)
    elif config.merge:
        aside = folder / ".adapter"
        _write_adapter(trained, aside)
        whole.merge(base, aside, folder)
        shutil.rmtree(aside)
    else:
        _write_adapter(trained, folder)
        _name_base(folder / ADAPTER_CONFIG, config.base.uri)
    _copy_from_base(config, base, folder)
    record = ArtifactRecord(
        kind="Adapter" if adapter else "Model",
        uri=str(parse_pvc(config.output_uri).child(_name(folder))),
        digest=weights.digest(weights.safetensors_files(folder)),
        size_bytes=0,
        rank=config.lora.r if adapter and config.lora is not None else None,
        base=config.base.uri,
        base_commit=config.base.commit,
        use_dora=adapter and config.lora is not None and config.lora.use_dora,
        modules_to_save=config.lora.modules_to_save or [] if adapter and config.lora is not None else [],
        probes=trained.probes,
    )
    state = trained.trainer.state
    state.save_to_json(str(folder / "trainer_state.json"))
    plot.draw(state.log_history, folder / plot.NAME, job=config.job, base=config.base.uri, steps=state.global_step)
    _copy_if_there(trained.checkpoints / tracking.RUNS, folder / tracking.RUNS)
    _copy_if_there(Path(config.output_path) / datareport.file_name(config), folder / PREFLIGHT_REPORT)
    (folder / "README.md").write_text(card.model_card(config, result, record))
    record = record.model_copy(update={"size_bytes": artifact.size(folder)})
    # By the weights an adapter's base is known again, wherever it lies by then.
    sources = ResolvedSources(base_commit=config.base.commit, base_digest=config.base.digest or "")
    return result.model_copy(update={"artifact": record, "sources": sources})


def _write_adapter(trained: Trained, folder: Path) -> None:
    model = trained.trainer.accelerator.unwrap_model(trained.trainer.model)
    # Embeddings are written where they were trained whole, as modulesToSave; PEFT's guess would ask the hub.
    model.save_pretrained(folder, state_dict=trained.state, save_embedding_layers=False)


def _name_base(path: Path, uri: str) -> None:
    """Write the base's URI where PEFT wrote its folder in this container; sorted, so that two runs write the same."""
    written = json.loads(path.read_bytes())
    written["base_model_name_or_path"] = uri
    for name in ("target_modules", "modules_to_save"):
        if isinstance(written.get(name), list):
            written[name] = sorted(written[name])
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def _copy_from_base(config: RunConfig, base: Base, folder: Path) -> None:
    """Copy the tokenizer with its chat template as it is, and the code of a model that brings its own."""
    code = tuple(path.name for path in base.folder.glob("*.py")) if config.base.trust_remote_code else ()
    root = base.folder if config.base.path is not None else base.folder.parents[1]
    artifact.copy_files((*basemodel.TOKENIZER_FILES, *code), source=base.folder, to=folder, root=root)


def _copy_if_there(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        shutil.copyfile(source, target)


def _name(folder: Path) -> str:
    """The artifact's name, from that of the folder beside it in which it is written: `.<name>.<attempt>`."""
    return folder.name.removeprefix(".").rpartition(".")[0]
