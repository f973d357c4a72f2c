"""Rows through the base's chat template and tokenizer, as TRL will take them: what the template refuses, and how many
tokens each row has.

The tokenizer works in a thread of its own (it lets go of the interpreter's lock), so that reading and rendering cost
little beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from largeforge.jobs.errors import InvalidConfigError
from largeforge.jobs.formats import Kind, Row
from largeforge.jobs.problems import Problem
from largeforge.jobs.sources import Bad, Good

_BATCH_ROWS = 512
_BATCH_CHARACTERS = 1 << 20
"""Whichever comes first: what is held at a time is bounded for short rows and for long ones."""
_AHEAD = 2
"""Batches that wait for the tokenizer."""
ASSISTANT_ONLY = "spec.training.assistantOnlyLoss"
_REFUSAL = 100
"""Characters of a template's refusal, which its author wrote."""

Render = Callable[[Row], str]


class Counted(NamedTuple):
    """A row and its tokens; 0 for a row that is wrong, or where nobody asked."""

    entry: Good | Bad
    tokens: int


class RefusedError(Exception):
    """The chat template does not take a row."""


class Encoder:
    """The tokenizer and chat template of one run."""

    def __init__(self, tokenizer: Any, kind: Kind, *, assistant_only: bool = False) -> None:
        self._tokenizer = tokenizer
        self._assistant_only = assistant_only
        self.kind = kind
        self._template = self._chosen_template()
        self.render: Render = self._renderer()
        self._lengths = self._measure()

    @property
    def conversational(self) -> bool:
        """Whether rows go through the chat template."""
        return self.kind in ("messages", "prompt and completion as messages")

    def _chosen_template(self) -> str | None:
        """The chat template where it is not the tokenizer's own."""
        if not self._assistant_only:
            return None
        if not self.conversational:
            raise InvalidConfigError(
                f"{ASSISTANT_ONLY} needs rows of messages, and these are {self.kind}; remove it, or use"
                " completionOnlyLoss",
                field=ASSISTANT_ONLY,
            )
        return training_template(self._tokenizer)

    def _renderer(self) -> Render:
        if self.conversational:
            return _template_renderer(self._tokenizer, self._template, assistant_only=self._assistant_only)
        eos = self._tokenizer.eos_token or ""

        def plain(row: Row) -> str:
            text: str = row["text"] if "text" in row else row["prompt"] + row["completion"]
            return text if text.endswith(eos) else text + eos  # as TRL does: the end is learnt too

        return plain

    def _measure(self) -> Callable[[Sequence[str]], list[int]]:
        tokenizer, special = self._tokenizer, not self.conversational
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer without a fast twin
            return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=special)["input_ids"]]
        # A tokenizer.json may say that it cuts; TRL cuts by itself.
        backend.no_truncation()
        backend.no_padding()
        return lambda texts: [len(e) for e in backend.encode_batch_fast(list(texts), add_special_tokens=special)]

    def learns_within(self, row: Row, limit: int, *, completion_only: bool | None) -> bool:
        """Whether the first *limit* tokens of *row* hold any that is learnt."""
        if self._assistant_only:
            marked = self._tokenizer.apply_chat_template(
                messages_of(row), chat_template=self._template, return_dict=True, return_assistant_tokens_mask=True
            )["assistant_masks"]
            return 1 in marked[:limit]
        if "prompt" not in row or completion_only is False:
            return True
        if isinstance(row["prompt"], str):
            return len(self._tokenizer(row["prompt"])["input_ids"]) < limit
        prompt = self._tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)
        return len(prompt["input_ids"]) < limit

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each of *texts*."""
        return self._lengths(texts)


def messages_of(row: Row) -> list[dict[str, str]]:
    """The whole conversation of a row of messages."""
    whole: list[dict[str, str]] = row["messages"] if "messages" in row else row["prompt"] + row["completion"]
    return whole


def _template_renderer(tokenizer: Any, chosen: str | None, *, assistant_only: bool) -> Render:
    """What renders rows with the chat template that TRL will use; raises `RefusedError`."""
    from jinja2 import TemplateError

    def rendered(row: Row) -> str:
        text: str = tokenizer.apply_chat_template(messages_of(row), tokenize=False, chat_template=chosen)
        return text

    def marked(row: Row) -> str:
        text, spans = render_marked(tokenizer, messages_of(row), str(chosen))
        if all(begin == end for begin, end in spans):
            raise RefusedError(
                "the chat template marks nothing of it as the assistant's; see training.assistantOnlyLoss"
            )
        return text

    text_of = marked if assistant_only else rendered

    def render(row: Row) -> str:
        try:
            return text_of(row)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [""])[0][:_REFUSAL]
            raise RefusedError(f"the base's chat template refuses it: {first or type(error).__name__}") from None

    return render


def render_marked(tokenizer: Any, messages: list[dict[str, str]], template: str) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and the characters in it that *template* marks as the assistant's.

    What `apply_chat_template` does for its mask, without the tokens: they are counted from the text, once.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    (text,), (spans,) = render_jinja_template(
        [messages], chat_template=template, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    return text, spans


def training_template(tokenizer: Any) -> str:
    """The chat template that marks what the assistant says: the base's own, or TRL's twin of it."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    own = tokenizer.chat_template
    if own and has_generation_markers(own):
        return str(own["default"] if isinstance(own, dict) else own)
    try:
        twin = get_training_chat_template(tokenizer)
    except ValueError:
        twin = None
    if twin is None:
        raise InvalidConfigError(
            f"{ASSISTANT_ONLY}: the base's chat template does not mark what the assistant says"
            " ({% generation %}), and TRL has no twin of it that does; remove it, or give the base such a template",
            field=ASSISTANT_ONLY,
        )
    return str(twin)


def counted(entries: Iterable[Good | Bad], encoder: Encoder, *, measure: bool) -> Iterator[Counted]:
    """Each of *entries* in order, those that the template refuses as `Bad`; with *measure*, with its tokens."""
    waiting: deque[tuple[list[Good | Bad], Future[list[int]]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for batch, texts in _batches(entries, encoder):
            if not measure:
                yield from (Counted(entry, 0) for entry in batch)
                continue
            waiting.append((batch, pool.submit(encoder.count, texts)))
            if len(waiting) > _AHEAD:
                yield from _joined(*waiting.popleft())
        while waiting:
            yield from _joined(*waiting.popleft())


def _joined(batch: list[Good | Bad], lengths: Future[list[int]]) -> Iterator[Counted]:
    tokens = iter(lengths.result())
    for entry in batch:
        yield Counted(entry, next(tokens) if isinstance(entry, Good) else 0)


def _batches(entries: Iterable[Good | Bad], encoder: Encoder) -> Iterator[tuple[list[Good | Bad], list[str]]]:
    """Batches of entries, and the texts of the good ones among them."""
    batch: list[Good | Bad] = []
    texts: list[str] = []
    characters = 0
    for entry in entries:
        if isinstance(entry, Good):
            try:
                text = encoder.render(entry.row)
            except RefusedError as refusal:
                batch.append(Bad(entry.file, entry.line, Problem("", str(refusal))))
            else:
                batch.append(entry)
                texts.append(text)
                characters += len(text)
        else:
            batch.append(entry)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch, texts
            batch, texts, characters = [], [], 0
    if batch:
        yield batch, texts
