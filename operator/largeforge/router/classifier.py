"""Which expert a conversation is for, and why: keywords and what was learnt from examples, in one score.

For each user message and expert (docs/routing.md has the formulas and what they are for):

    own     = 1 - (1 - keywords) (1 - learnt)
    score   = the larger of own and half the score of the message before
    total   = score + stickiness (of the expert that the conversation is with) + priority / 1000

The expert with the highest total wins among those whose score reaches their threshold. Where none does, the
conversation stays where it is; else nobody's is it, and the fallback answers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from largeforge.router import fit
from largeforge.router.classify import Matcher, Pattern
from largeforge.router.learnt import Embed, Learnt, Lesson
from largeforge.router.ridge import lead
from largeforge.router.terms import Floats
from largeforge.router.text import blocks

LOOK_BACK = 3
"""User messages before the last one that count."""
EARLIER_SHARE = 0.5
"""What a score is worth one message later."""
THRESHOLD = 0.5
"""The least score that an expert wins with, unless it says another."""
STICKINESS = 0.1
"""The lead by which another expert must win to take a conversation over, unless its expert says another."""
PRIORITY_STEP = 0.001

KEYWORD = "keyword"
EXAMPLES = "examples"
HYBRID = "hybrid"
CONVERSATION = "conversation"
FALLBACK = "fallback"


class Rule(NamedTuple):
    """What an expert says of its own scores."""

    threshold: float = THRESHOLD
    stickiness: float = STICKINESS
    priority: int = 0


_DEFAULTS = Rule()


@dataclass(frozen=True, slots=True)
class ExpertText:
    """All that an expert says of the texts that it wants."""

    name: str
    patterns: tuple[Pattern, ...] = ()
    examples: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    rule: Rule = _DEFAULTS


class Parts(NamedTuple):
    """What makes up the score of one expert."""

    keywords: float = 0.0
    learnt: float = 0.0
    earlier: float = 0.0
    """From the messages before."""
    stickiness: float = 0.0
    priority: float = 0.0

    @property
    def own(self) -> float:
        """What the last message alone says."""
        return 1 - (1 - self.keywords) * (1 - self.learnt)

    @property
    def score(self) -> float:
        """What counts against the threshold."""
        return max(self.own, self.earlier)

    @property
    def total(self) -> float:
        """What counts against other experts."""
        return self.score + self.stickiness + self.priority


@dataclass(frozen=True, slots=True)
class Decision:
    """Who gets a conversation, and why."""

    expert: str | None
    """None: nobody's; the fallback's."""
    reason: str
    score: float
    parts: Mapping[str, Parts]
    """Of each expert of which anything was found."""
    runner_up: str | None = None
    embedded: bool = False
    """Whether the embedding of the text counted."""


@dataclass(frozen=True, slots=True)
class _Message:
    """What is known of one user message before it is embedded."""

    keywords: Mapping[str, float]
    blocks: tuple[str, ...]
    raw: Floats | None
    """The cheap head's."""
    unclear: bool


@dataclass(frozen=True, slots=True)
class Outlook:
    """A conversation, as far as it can be judged without embedding it."""

    messages: tuple[_Message, ...]
    allowed: Collection[str]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The texts that must be embedded for `settle`; none where the decision is clear."""
        if not self.messages or not self.messages[-1].unclear:
            return ()
        return tuple(dict.fromkeys(b for message in self.messages if message.unclear for b in message.blocks))


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """What chooses; replaced whole."""

    matcher: Matcher
    rules: Mapping[str, Rule]
    learnt: Learnt | None = None
    everybody: frozenset[str] = field(default_factory=frozenset)

    def decide(
        self, conversation: Sequence[str], *, allowed: Collection[str] | None = None, embed: Embed | None = None
    ) -> Decision:
        """Who gets a conversation of these user messages, the oldest first; *embed* is asked where it is not clear."""
        outlook = self.look(conversation, allowed=allowed)
        wanted = outlook.wanted if embed is not None else ()
        return self.settle(outlook, dict(zip(wanted, embed(wanted), strict=True)) if embed and wanted else {})

    def look(self, conversation: Sequence[str], *, allowed: Collection[str] | None = None) -> Outlook:
        """The first half of a decision, in tens of microseconds."""
        among = self.everybody if allowed is None else allowed
        messages = tuple(self._message(text, among) for text in conversation[-1 - LOOK_BACK :])
        return Outlook(messages, among)

    def settle(self, outlook: Outlook, embeddings: Mapping[str, Floats]) -> Decision:
        """The second half, with the embeddings that were wanted, or without where they could not be had."""
        earlier: dict[str, float] = {}
        current: str | None = None
        parts: dict[str, Parts] = {}
        for message in outlook.messages:
            parts = self._parts(message, outlook.allowed, embeddings, earlier, current)
            earlier = {name: EARLIER_SHARE * part.score for name, part in parts.items()}
            current = self._winner(parts, current)
        return self._decision(current, parts, embedded=bool(embeddings))

    def _message(self, text: str, allowed: Collection[str]) -> _Message:
        keywords = self.matcher.scores(text)
        learnt = self.learnt
        found = blocks(text) if learnt is not None else ()
        if learnt is None or not found:
            return _Message(keywords, (), None, unclear=False)
        raw = learnt.cheap.raw(found)
        return _Message(
            keywords, found, raw, unclear=learnt.full is not None and not self._clear(raw, keywords, allowed)
        )

    def _clear(self, raw: Floats, keywords: Mapping[str, float], allowed: Collection[str]) -> bool:
        """Whether terms alone say who it is, and no keyword says otherwise."""
        if self.learnt is None or not float(lead(raw)) >= self.learnt.cheap.worth.clear:
            return False
        winner = self.learnt.experts[int(raw.argmax())]
        return winner in allowed and all(name == winner for name in keywords if name in allowed)

    def _parts(
        self,
        message: _Message,
        allowed: Collection[str],
        embeddings: Mapping[str, Floats],
        earlier: Mapping[str, float],
        current: str | None,
    ) -> dict[str, Parts]:
        learnt = self._learnt(message, embeddings)
        names = [name for name in {**message.keywords, **learnt, **earlier} if name in allowed]
        return {
            name: Parts(
                message.keywords.get(name, 0.0),
                learnt.get(name, 0.0),
                earlier.get(name, 0.0),
                self.rules[name].stickiness if name == current else 0.0,
                PRIORITY_STEP * self.rules[name].priority,
            )
            for name in names
        }

    def _learnt(self, message: _Message, embeddings: Mapping[str, Floats]) -> dict[str, float]:
        learnt, raw = self.learnt, message.raw
        if learnt is None or raw is None:
            return {}
        if message.unclear and learnt.full is not None and all(block in embeddings for block in message.blocks):
            raw = learnt.full.raw(message.blocks, [embeddings[block] for block in message.blocks])
            worth = learnt.full.worth.worth(raw)
        else:
            worth = learnt.cheap.worth.worth(raw)
        return dict(zip(learnt.experts, worth.tolist(), strict=True))

    def _winner(self, parts: Mapping[str, Parts], current: str | None) -> str | None:
        fitting = [name for name, part in parts.items() if part.score >= self.rules[name].threshold]
        if current is not None and self.rules[current].stickiness > 0 and current not in fitting and current in parts:
            fitting = [name for name in fitting if parts[name].total > parts[current].total] or [current]
        return min(fitting, key=lambda name: (-parts[name].total, name), default=None)

    def _decision(self, expert: str | None, parts: Mapping[str, Parts], *, embedded: bool) -> Decision:
        ranked = sorted(parts, key=lambda name: (-parts[name].total, name))
        second = next((name for name in ranked if name != expert and parts[name].score > 0), None)
        if expert is None:
            return Decision(None, FALLBACK, 0.0, parts, second, embedded)
        return Decision(expert, self._reason(expert, parts[expert]), parts[expert].score, parts, second, embedded)

    def _reason(self, expert: str, part: Parts) -> str:
        threshold = self.rules[expert].threshold
        if part.own < threshold:
            return CONVERSATION
        by_keywords, by_examples = part.keywords >= threshold, part.learnt >= threshold
        if by_keywords == by_examples:
            return HYBRID
        return KEYWORD if by_keywords else EXAMPLES


def classifier(experts: Sequence[ExpertText], learnt: Learnt | None) -> Classifier:
    """The classifier of *experts* with what was learnt of their examples."""
    return Classifier(
        Matcher({expert.name: expert.patterns for expert in experts}),
        {expert.name: expert.rule for expert in experts},
        learnt,
        frozenset(expert.name for expert in experts),
    )


def learn(experts: Sequence[ExpertText], embed: Embed | None = None) -> Classifier:
    """The classifier of *experts*, learnt here and now."""
    lessons = [Lesson(expert.name, expert.examples, expert.negatives) for expert in experts]
    return classifier(experts, fit.learn(lessons, embed))
