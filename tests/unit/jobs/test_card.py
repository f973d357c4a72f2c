from __future__ import annotations

from largeforge.api.common import Metric
from largeforge.api.finetunejobstatus import ArtifactRecord, DatasetSummary, RunFacts
from largeforge.api.run import RunResult
from largeforge.jobs.card import model_card
from tests.unit.jobs.runs import config, source

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["all-linear"], "use_dora": True}


def card(tmp_path, *, kind="Adapter", base="hf://org/base", **fields):
    run = config(tmp_path, source(tmp_path / "rows.jsonl", weight=2), **fields)
    record = ArtifactRecord(
        kind=kind, uri="pvc://out/sql", digest="e" * 64, size_bytes=1, base=base, base_commit="c" * 40
    )
    facts = RunFacts(
        strategy="DDP",
        precision="BF16",
        ranks=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        versions=[Metric(name="trl", value="1.16.0")],
    )
    metrics = [Metric(name="eval_loss", value="1.2345"), Metric(name="data_share", value="0.01")]
    summary = DatasetSummary(digest="d" * 64, samples=90, eval_samples=10)
    result = RunResult(outcome="Succeeded", dataset=summary, facts=facts, metrics=metrics)
    return model_card(run, result, record).splitlines()


def test_an_adapters_card_names_base_data_and_figures(tmp_path):
    lines = card(tmp_path, lora=LORA)
    assert f"A LoRA adapter of `hf://org/base` at commit `{'c' * 40}`; made by run 1 of the FineTuneJob `sql`." in lines
    for line in (
        "library_name: peft",
        "base_model: org/base",
        "![Loss over the steps](loss.png)",
        "| Held-out loss | 1.2345 |",
        "- `pvc://data/rows.jsonl`, weight 2",
        "- 90 rows trained on, 10 held out",
        "- LoRA r 8, alpha 16, dropout 0.05, on all-linear, DoRA",
        "- DDP with 2 ranks in BF16, 16 samples a step",
        "- trl 1.16.0",
    ):
        assert line in lines


def test_a_whole_models_card_names_no_adapter_and_a_base_on_a_claim_no_repository(tmp_path):
    lines = card(tmp_path, kind="Model", base="pvc://models/base", extra_args={"neftune_noise_alpha": 5})
    assert "library_name: transformers" in lines
    assert "- all weights" in lines
    assert "- neftune_noise_alpha: 5" in lines
    assert not any(line.startswith("base_model:") for line in lines)
