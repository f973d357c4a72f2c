"""What one writes with TRL alone, with the arguments of our run: `python plain.py MODEL ROWS OUT STEPS`."""

import sys

from datasets import load_dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

model, rows, out, steps = sys.argv[1:5]
arguments = SFTConfig(
    output_dir=out, max_steps=int(steps), learning_rate=2e-4, lr_scheduler_type="cosine", warmup_steps=0.03,
    per_device_train_batch_size=4, gradient_accumulation_steps=2, max_length=256, logging_steps=1, seed=42,
    use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True, save_strategy="no",
)  # fmt: skip
lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
data = load_dataset("json", data_files=rows, split="train")
trainer = SFTTrainer(model, args=arguments, train_dataset=data, peft_config=lora)
trainer.train()
trainer.save_model(out)
