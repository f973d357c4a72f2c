"""Configurations of runs and a tokenizer of words, as the tests of rows and preflight need them."""

from __future__ import annotations

import json

from jinja2 import Environment

from largeforge.api.run import RowSource, RunConfig

TRAINING = {
    "max_steps": None,
    "num_train_epochs": 1,
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "max_length": 64,
    "precision": "Auto",
    "seed": 42,
}
USER = {"role": "user", "content": "Is it hot?"}
ANSWER = {"role": "assistant", "content": "It is."}
CHAT = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "Is it hot?", "completion": " It is."}


def source(path, index=0, **fields):
    """A data set in the file or folder *path*."""
    uri = fields.pop("uri", f"pvc://data/{path.name}")
    return RowSource(uri=uri, field=f"spec.datasets[{index}]", path=str(path), **fields)


def written(path, *rows):
    """*path* with *rows*, a line of JSON each; a text is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def config(tmp_path, *datasets, training=None, base=None, **fields):
    """A run on *datasets* whose base and output lie below *tmp_path*."""
    folder = tmp_path / "base"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    (tmp_path / "output").mkdir(exist_ok=True)
    return RunConfig.model_validate(
        {
            "namespace": "team",
            "job": "sql",
            "run": 1,
            "digest": "ab" * 32,
            "method": "SFT",
            "base": base or {"uri": "pvc://models/base", "field": "spec.base.uri", "path": str(folder)},
            "datasets": list(datasets),
            "eval_split_ratio": 0,
            "lora": None,
            "training": TRAINING | (training or {}),
            "compute": {"processes": 1, "use_cpu": True, "strategy": "Single"},
            "checkpoint": {
                "path": str(tmp_path / "output"),
                "uri": "pvc://out/sql",
                "every_steps": None,
                "every_minutes": 30,
                "keep": 2,
                "resume": True,
            },
            "output_uri": "pvc://out/sql",
            "output_path": str(tmp_path / "output"),
            **fields,
        }
    )


class Words:
    """A tokenizer whose tokens are words; its chat template wants user and assistant in turns."""

    eos_token = "</s>"
    chat_template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) and m['role'] != 'system' %}"
        "{{ refuse('roles must alternate') }}{% endif %}{{ m['role'] }}: {{ m['content'] }} ; {% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    def __call__(self, text, **_):
        """The ids of one text or of several."""
        texts = [text] if isinstance(text, str) else text
        ids = [[hash(word) for word in one.replace("</s>", " </s>").split()] for one in texts]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def get_vocab(self):
        return {"</s>": 0}

    def apply_chat_template(self, messages, *, tokenize=True, chat_template=None, add_generation_prompt=False, **_):
        """The text, or with *tokenize* its ids."""
        environment = Environment(autoescape=False)  # noqa: S701 - prompts are no HTML
        environment.globals["refuse"] = _refuse
        template = environment.from_string(chat_template or self.chat_template)
        text = template.render(messages=messages, add_generation_prompt=add_generation_prompt)
        return self(text) if tokenize else text


def _refuse(text):
    raise ValueError(text)
