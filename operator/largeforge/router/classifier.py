"""Which expert a conversation is for, and why: keywords and what was learnt from examples, in one score.

For each user message and expert (docs/routing.md has the formulas and what they are for):

    own     = 1 - (1 - keywords) (1 - learnt)
    score   = the larger of own and half the score of the message before
    total   = score + stickiness (of the expert that the conversation is with) + priority / 1000

The highest total wins among those whose score reaches their threshold; of equal ones the first by name. A conversation
stays with its expert until another one wins so. Where nobody does, the fallback answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from largeforge.router import fit
from largeforge.router.classify import Matcher, Pattern
from largeforge.router.learnt import Embed, Learnt, Lesson
from largeforge.router.products import Vectors
from largeforge.router.ridge import lead
from largeforge.router.terms import Floats

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
class Choice:
    """Who gets a conversation, and why."""

    expert: str | None
    """None: nobody's; the fallback's."""
    reason: str
    score: float
    parts: Mapping[str, Parts]
    """Of each expert of which anything was found."""
    embedded: bool = False
    """Whether an embedding counted."""

    def ranked(self) -> list[str]:
        """The experts, the highest total first."""
        return sorted(self.parts, key=lambda name: (-self.parts[name].total, name))


@dataclass(frozen=True, slots=True)
class _Message:
    """What is known of one user message before it is embedded."""

    keywords: Mapping[str, float]
    blocks: tuple[str, ...] = ()
    vectors: Vectors = ()
    """Of the blocks."""
    raw: Floats | None = None
    """The cheap head's."""
    unclear: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """A conversation, as far as it can be judged without embedding it."""

    messages: tuple[_Message, ...]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The texts that must be embedded for `settle`; none where the decision is clear."""
        if not self.messages or not self.messages[-1].unclear:
            return ()
        return tuple(dict.fromkeys(b for message in self.messages if message.unclear for b in message.blocks))


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """What chooses."""

    matcher: Matcher
    rules: Mapping[str, Rule]
    """Of those that may be chosen."""
    learnt: Learnt | None = None
    reach: float = 0.0
    """`reach_of` the rules."""

    def at_once(self, conversation: Sequence[str]) -> Choice | None:
        """What `decide` says, without the parts, where the last message's keywords suffice; None where they do not."""
        if self.learnt is not None or not conversation:
            return None
        found = self.matcher.scores(conversation[-1])
        best, most = None, 0.0
        for name, score in found.items():
            rule = self.rules.get(name)
            if rule is not None and score >= rule.threshold:
                total = score + PRIORITY_STEP * rule.priority
                if best is None or total > most or (total == most and name < best):
                    best, most = name, total
        if len(conversation) > 1 and (best is None or most <= self._held(found, best)):
            return None
        return Choice(best, KEYWORD, found[best], {}) if best is not None else Choice(None, FALLBACK, 0.0, {})

    def _held(self, found: Mapping[str, float], best: str) -> float:
        """The highest total that an expert but *best* can have when earlier messages count too."""
        others = [(score, self.rules[name]) for name, score in found.items() if name != best and name in self.rules]
        totals = (score + rule.stickiness + PRIORITY_STEP * rule.priority for score, rule in others)
        return max(self.reach, *totals, 0.0)

    def decide(self, conversation: Sequence[str], *, embed: Embed | None = None) -> Choice:
        """Who gets a conversation of these user messages, the oldest first; *embed* is asked where it is not clear."""
        outlook = self.look(conversation)
        wanted = outlook.wanted
        return self.settle(outlook, dict(zip(wanted, embed(wanted), strict=True)) if embed and wanted else {})

    def look(self, conversation: Sequence[str]) -> Outlook:
        """The first half of a decision, in tens of microseconds."""
        return Outlook(tuple([self._message(text) for text in conversation[-1 - LOOK_BACK :]]))

    def settle(self, outlook: Outlook, embeddings: Mapping[str, Floats]) -> Choice:
        """The second half, with the embeddings that were wanted, or without where they could not be had."""
        earlier: dict[str, float] = {}
        current: str | None = None
        parts: dict[str, Parts] = {}
        for message in outlook.messages:
            parts = self._parts(message, embeddings, earlier, current)
            earlier = {name: EARLIER_SHARE * part.score for name, part in parts.items()}
            current = self._winner(parts, current)
        return self._decision(current, parts, embedded=bool(embeddings))

    def _message(self, text: str) -> _Message:
        keywords = self.matcher.scores(text)
        learnt = self.learnt
        if learnt is None:
            return _Message(keywords)
        found = learnt.blocks(text)
        if not found:
            return _Message(keywords)
        vectors = learnt.vectors(found)
        raw = learnt.cheap.raw(vectors)
        return _Message(
            keywords, found, vectors, raw, learnt.full is not None and not self._clear(learnt, raw, keywords)
        )

    def _clear(self, learnt: Learnt, raw: Floats, keywords: Mapping[str, float]) -> bool:
        """Whether terms alone say who it is, and no keyword says otherwise."""
        if not lead(raw) >= learnt.cheap.worth.clear:
            return False
        winner = learnt.experts[int(raw.argmax())]
        return winner in self.rules and all(name == winner for name in keywords if name in self.rules)

    def _parts(
        self, message: _Message, embeddings: Mapping[str, Floats], earlier: Mapping[str, float], current: str | None
    ) -> dict[str, Parts]:
        keywords, learnt = message.keywords, self._learnt(message, embeddings)
        parts = {}
        for name in {**keywords, **learnt, **earlier}:
            rule = self.rules.get(name)
            if rule is not None:
                parts[name] = Parts(
                    keywords.get(name, 0.0),
                    learnt.get(name, 0.0),
                    earlier.get(name, 0.0),
                    rule.stickiness if name == current else 0.0,
                    PRIORITY_STEP * rule.priority,
                )
        return parts

    def _learnt(self, message: _Message, embeddings: Mapping[str, Floats]) -> dict[str, float]:
        learnt, raw = self.learnt, message.raw
        if learnt is None or raw is None:
            return {}
        if message.unclear and learnt.full is not None and all(block in embeddings for block in message.blocks):
            raw = learnt.full.raw(message.vectors, [embeddings[block] for block in message.blocks])
            worth = learnt.full.worth.worth(raw)
        else:
            worth = learnt.cheap.worth.worth(raw)
        return dict(zip(learnt.experts, worth.tolist(), strict=True))

    def _winner(self, parts: Mapping[str, Parts], current: str | None) -> str | None:
        fitting = [name for name, part in parts.items() if part.score >= self.rules[name].threshold]
        if current is not None and current not in fitting and self.rules[current].stickiness > 0:
            stays = parts[current].total
            fitting = [name for name in fitting if parts[name].total > stays] or [current]
        return min(fitting, key=lambda name: (-parts[name].total, name), default=None)

    def _decision(self, expert: str | None, parts: Mapping[str, Parts], *, embedded: bool) -> Choice:
        if expert is None:
            return Choice(None, FALLBACK, 0.0, parts, embedded)
        return Choice(expert, self._reason(expert, parts[expert]), parts[expert].score, parts, embedded)

    def _reason(self, expert: str, part: Parts) -> str:
        threshold = self.rules[expert].threshold
        if part.own < threshold:
            return CONVERSATION
        by_keywords, by_examples = part.keywords >= threshold, part.learnt >= threshold
        if by_keywords == by_examples:
            return HYBRID if part.keywords and part.learnt else KEYWORD if part.keywords else EXAMPLES
        return KEYWORD if by_keywords else EXAMPLES


def learn(experts: Sequence[ExpertText], embed: Embed | None = None, *, words: Collection[str] = ()) -> Classifier:
    """The classifier of *experts*, learnt here and now (`fit.learn`)."""
    return Classifier(
        Matcher({expert.name: expert.patterns for expert in experts}),
        {expert.name: expert.rule for expert in experts},
        fit.learn([Lesson(expert.name, expert.examples, expert.negatives) for expert in experts], embed, words=words),
        reach_of(expert.rule for expert in experts),
    )


def reach_of(rules: Iterable[Rule]) -> float:
    """The highest total that an expert can have by earlier messages alone."""
    return EARLIER_SHARE + max((rule.stickiness + PRIORITY_STEP * rule.priority for rule in rules), default=0.0)
