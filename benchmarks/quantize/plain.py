"""What one writes with llm-compressor alone, for the same samples: `python plain.py METHOD MODEL SAMPLES OUT`."""

import json
import sys
from pathlib import Path

from compressed_tensors.quantization import preset_name_to_scheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from transformers import AutoModelForCausalLM, AutoTokenizer

method, source, samples, out = sys.argv[1:5]
IntermediatesCache.pin_memory = lambda *_: None  # on a CPU AWQ does not run without it
model, tokenizer = AutoModelForCausalLM.from_pretrained(source, dtype="auto"), AutoTokenizer.from_pretrained(source)
scheme = preset_name_to_scheme("W4A16_ASYM" if method == "AWQ" else "W4A16", ["Linear"])
scheme.weights.group_size = 64
plain = {"targets": ["Linear"], "ignore": ["lm_head"]}
recipe = {
    "AWQ": lambda: [AWQModifier(), QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])],
    "GPTQ": lambda: [GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])],
    "W8A8": lambda: [SmoothQuantModifier(smoothing_strength=0.8), QuantizationModifier(scheme="W8A8", **plain)],
    "FP8Dynamic": lambda: [QuantizationModifier(scheme="FP8_DYNAMIC", **plain)],
}[method]()
rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in json.loads(Path(samples).read_text())]
data = {} if method == "FP8Dynamic" else {"dataset": Dataset.from_list(rows), "num_calibration_samples": len(rows)}
oneshot(model=model, tokenizer=tokenizer, recipe=recipe, shuffle_calibration_samples=False, **data)
model.save_pretrained(out, save_compressed=True)
