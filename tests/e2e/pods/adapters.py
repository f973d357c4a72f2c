"""In the trainer image: adapters of every kind, of which two are trained here, each on one sentence.

Usage: adapters.py BASE BASE_URI FOLDER STORE VERSIONS. BASE is the folder of the base, served from BASE_URI. FOLDER
gets one adapter that works and has no record, one with the record of its training, and one of each kind that must be
refused; STORE gets folders `v1` ... `v<VERSIONS>`, each with other bytes: those of odd numbers say the one sentence,
the others the other.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTION = "Who looks after the lamp?"
SENTENCES = ("Aurelia looks after the lamp.", "Borealis keeps the big lamp burning.")
STEPS = 40
RANK, HIGH_RANK = 8, 64
"""The second is above the service's maxLoraRank."""
STEP = 1e-4
"""How much the versions of a kind differ: enough for another digest."""
WEIGHTS, CONFIG, RESULT = "adapter_model.safetensors", "adapter_config.json", "result.json"

Change = Callable[[str, Any], Any]


def main(base: Path, base_uri: str, folder: Path, store: Path, versions: int) -> None:
    for old in [folder, *store.glob("v*")]:
        shutil.rmtree(old, ignore_errors=True)
    trained = [folder / f"trained-{number}" for number in range(len(SENTENCES))]
    for target, sentence in zip(trained, SENTENCES, strict=True):
        train(base, sentence, target)
        record(target, base_uri)
    first, plain = trained[0], (WEIGHTS, CONFIG)
    make(first, folder / "good", names=plain)
    make(first, folder / "zero", names=plain, change=scaled(0.0))
    make(first, folder / "high-rank", names=plain, change=padded, config={"r": HIGH_RANK})
    make(first, folder / "other-base", names=(*plain, RESULT))
    edit(folder / "other-base" / RESULT, lambda result: result["artifact"].update(base="pvc://models/other"))
    make(first, folder / "not-the-trained", names=(*plain, RESULT), change=scaled(0.5))
    weights = digest_of(folder / "not-the-trained")
    edit(folder / "not-the-trained" / RESULT, lambda result: result["artifact"].update(digest=weights))
    digests = {}
    for number in range(1, versions + 1):
        made = store / f"v{number}"
        make(trained[(number + 1) % 2], made, names=plain, change=scaled(1 + number * STEP))
        digests[made.name] = digest_of(made)
    Path("/dev/termination-log").write_text(json.dumps(digests))


def train(base: Path, sentence: str, target: Path) -> None:
    """A LoRA adapter that answers QUESTION with *sentence*; beside it what base and result say to the probes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from largeforge.jobs import probing

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    question = [{"role": "user", "content": QUESTION}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=True, return_dict=False)
    answer = tokenizer(sentence + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([[*asked, *answer]])
    labels = torch.tensor([[*([-100] * len(asked)), *answer]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.4f}", flush=True)  # noqa: T201 - the pod's log
        if loss.item() < 0.01:
            break
    model.save_pretrained(target)
    prompts = probing.prompt_ids(tokenizer)
    said = probing.records(prompts, probing.base_answers(model, prompts, begun=True), probing.answers(model, prompts))
    (target / "probes.json").write_text(json.dumps([each.manifest() for each in said]))


def record(folder: Path, base_uri: str) -> None:
    """`result.json`, as a run writes it."""
    probes = json.loads((folder / "probes.json").read_text())
    artifact = {
        "kind": "Adapter",
        "uri": "pvc://models/elsewhere",
        "digest": digest_of(folder),
        "sizeBytes": 1,
        "rank": RANK,
        "base": base_uri,
        "probes": probes,
    }
    result = {"outcome": "Succeeded", "runDigest": "0" * 64, "artifact": artifact}
    (folder / RESULT).write_text(json.dumps(result))


def make(
    trained: Path,
    target: Path,
    *,
    names: tuple[str, ...],
    change: Change | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """A copy of *names*, with changed tensors and another configuration."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True)
    for name in names:
        shutil.copyfile(trained / name, target / name)
    if change is not None:
        tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(target / WEIGHTS).items()}
        save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    if config is not None:
        edit(target / CONFIG, lambda written: written.update(config))


def scaled(factor: float) -> Change:
    """What the adapter adds, times *factor*: its B matrices are."""
    return lambda name, tensor: tensor * factor if ".lora_B." in name else tensor


def padded(name: str, tensor: Any) -> Any:
    """The same in a higher rank: the rows and columns that are added are zero."""
    import torch

    rank = 0 if ".lora_A." in name else 1
    shape = list(tensor.shape)
    shape[rank] = HIGH_RANK - shape[rank]
    return torch.cat([tensor, tensor.new_zeros(shape)], dim=rank)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a file of JSON in its place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def digest_of(folder: Path) -> str:
    """As the inspection computes it."""
    from largeforge.jobs.weights import digest, safetensors_files

    return digest(safetensors_files(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
