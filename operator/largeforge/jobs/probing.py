"""What a model answers first to the fixed public conversations. Torch is imported inside.

An expert is later asked the same by the serving engine, for one token with its log-probabilities: the adapter that is
loaded is the trained one where they agree with the result's, and differ from the base's as these do.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from largeforge.api.finetunejobstatus import ProbeRecord, TokenLogprob
from largeforge.api.probes import PROBES

LIKELIEST = 5
Answers = Mapping[str, list[TokenLogprob]]
"""The likeliest first tokens, by the conversation's name."""


def prompt_ids(tokenizer: Any) -> dict[str, list[int]]:
    """The token ids of each conversation as the engine's chat endpoint makes them; none without a chat template."""
    if not getattr(tokenizer, "chat_template", None):
        return {}
    return {
        name: list(
            tokenizer.apply_chat_template(
                [dict(message) for message in conversation],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        )
        for name, conversation in PROBES.items()
    }


def prompt_digest(ids: Sequence[int]) -> str:
    """SHA-256 over *ids*, each as four bytes, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()


def answers(model: Any, prompts: Mapping[str, Sequence[int]]) -> Answers:
    """What *model* would say first to each of *prompts*; with FSDP every rank must ask at the same time."""
    import torch

    trained = model.training
    model.eval()
    found = {}
    with torch.no_grad():
        for name, ids in prompts.items():
            tokens = torch.tensor([list(ids)], device=_device(model))
            logits = model(input_ids=tokens, use_cache=False).logits[0, -1]
            values, indices = torch.log_softmax(logits.float(), dim=-1).topk(LIKELIEST)
            found[name] = [
                TokenLogprob(id=index, logprob=f"{value:.4f}")
                for index, value in zip(indices.tolist(), values.tolist(), strict=True)
            ]
    model.train(trained)
    return found


def base_answers(model: Any, prompts: Mapping[str, Sequence[int]], *, begun: bool) -> Answers:
    """What the base says: *model* without its adapter, or, where all weights are trained, before the first step.

    Nothing where training has *begun* on all weights: the base is no longer in memory.
    """
    disabled = getattr(model, "disable_adapter", None)
    if disabled is not None:
        # First with the adapter: FSDP notes at its first pass which parameters are trained, and in which type their
        # gradients are, and where the adapter is disabled none is.
        answers(model, dict(list(prompts.items())[:1]))
        with disabled():
            return answers(model, prompts)
    return {} if begun else answers(model, prompts)


def records(prompts: Mapping[str, Sequence[int]], base: Answers, result: Answers) -> list[ProbeRecord]:
    """What goes into the artifact's record; nothing of a base that was not measured."""
    return [
        ProbeRecord(name=name, prompt_digest=prompt_digest(ids), base=base.get(name, []), result=result[name])
        for name, ids in prompts.items()
    ]


def _device(model: Any) -> Any:
    """Where the model computes: with FSDP's offloading that is not where its parameters lie."""
    import torch

    device = next(model.parameters()).device
    return device if device.type != "cpu" or not torch.cuda.is_available() else torch.device("cuda")
