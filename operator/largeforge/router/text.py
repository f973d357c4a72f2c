"""What of a text is learnt from and classified: its first and its last block, in lower case, without the politeness."""

from __future__ import annotations

import re
import unicodedata

BLOCK_CHARACTERS = 256
"""Of each block; some 64 tokens. A question that is longer says what it is about in them."""
FEWEST_WORDS = 5
"""Of a block of a longer text; politeness does not count."""
_REACH = 2 * BLOCK_CHARACTERS
"""How much of each end of a text is looked at."""
_ASKS = ("?", "\uff1f", "\u037e", "\u061f")
"""The question marks of some scripts, at the end of a block."""
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|\s*\n\s*")
_WORD = re.compile(r"\w+|[^\w\s\ud800-\udfff.,?!;:'\"`’‘“”()-]")
"""A word, or a sign that says something («{», «+», «=»); what only punctuates, or is no character, is left out."""

_POLITE = """
hi | hello | hey | hello there | hi there | hey there | dear all | good morning | good afternoon | good evening
greetings | please | pls | plz | kindly | so | well | ok | okay | excuse me | sorry to bother you | quick question
one question | i have a question | a question | i was wondering if | i was wondering | i wonder if | just wondering
help me | hope you are well | hope you re well | hope this finds you well | would you mind | could you help me
can you help me | could you | can you | would you | will you | could you please | can you please | would you please
please could you | please can you | i would like you to | i d like you to | i would like to know | i d like to know
i want to know | i need to know | i would like to | i d like to | i want you to | i need you to | i need help with
i need some help with | do you know | any idea | tell me | let me know | please tell me | could you tell me
can you tell me | please help | thanks | thank you | thanks a lot | thank you very much | thank you so much
many thanks | thanks in advance | thank you in advance | thx | ty | cheers | much appreciated | i appreciate it
i d appreciate it | best regards | kind regards | regards | best | have a nice day | if you can | if possible
if you don t mind | asap | hallo | guten tag | guten morgen | bitte | danke | vielen dank | danke im voraus
kannst du | könntest du | können sie | könnten sie | bonjour | salut | s il vous plaît | s il te plaît | svp | merci
merci d avance | merci beaucoup | hola | buenos días | por favor | gracias | muchas gracias | ciao | per favore
per piacere | grazie | grazie mille
"""
_PHRASES = frozenset(
    tuple(_WORD.findall(phrase)) for line in _POLITE.strip().splitlines() for phrase in line.split("|")
)
_LONGEST = max(map(len, _PHRASES))
_FIRSTS = frozenset(phrase[0] for phrase in _PHRASES)
_LASTS = frozenset(phrase[-1] for phrase in _PHRASES)


def blocks(text: str) -> tuple[str, ...]:
    """The parts of *text* that are classified, each as `canonical`; none where it has no word.

    One for a text that is short. Of a longer one the first and the last sentence or line: who pastes a page puts the
    question before it or behind it, and where one of the two asks and the other does not, it is that one. One of a few
    words («Hi Anna,») takes its neighbours in.
    """
    text = text.strip()
    found = [text] if len(text) <= BLOCK_CHARACTERS else [_first(text[:_REACH]), _last(text[-_REACH:])]
    asking = [block for block in found if block.endswith(_ASKS)]
    return tuple(dict.fromkeys(filter(None, map(canonical, asking if len(asking) == 1 else found))))


def _first(text: str) -> str:
    """The first sentences or lines of *text*, until they have `FEWEST_WORDS`, but no more than a block."""
    return _beginning(" ".join(_enough(_SENTENCE_END.split(text))))


def _last(text: str) -> str:
    """The last ones."""
    return _end(" ".join(_enough(_SENTENCE_END.split(text)[::-1])[::-1]))


def _enough(parts: list[str]) -> list[str]:
    """As many of the first *parts* as have `FEWEST_WORDS` together."""
    words = 0
    for count, part in enumerate(parts, start=1):
        words += len(_impolite(_WORD.findall(part.casefold())))
        if words >= FEWEST_WORDS:
            return parts[:count]
    return parts


def canonical(text: str) -> str:
    """The words of *text* in lower case with a space between; politeness at both ends is left out.

    A text that is nothing but polite stays as it is.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    words = _WORD.findall(text.casefold())
    return " ".join(_impolite(words) or words)


def _impolite(words: list[str]) -> list[str]:
    """*words* without the polite phrases at both ends."""
    start, end = 0, len(words)
    while start < end and words[start] in _FIRSTS:
        length = _phrase(words[start : min(end, start + _LONGEST)])
        if not length:
            break
        start += length
    while start < end and words[end - 1] in _LASTS:
        length = _phrase(words[max(start, end - _LONGEST) : end], at_end=True)
        if not length:
            break
        end -= length
    return words[start:end]


def _phrase(words: list[str], *, at_end: bool = False) -> int:
    """The length of the longest polite phrase at one end of *words*."""
    for length in range(len(words), 0, -1):
        if tuple(words[-length:] if at_end else words[:length]) in _PHRASES:
            return length
    return 0


def _beginning(block: str) -> str:
    """The first characters of *block*, to the end of a word."""
    if len(block) <= BLOCK_CHARACTERS:
        return block
    cut = block.rfind(" ", BLOCK_CHARACTERS // 2, BLOCK_CHARACTERS + 1)
    return block[: cut if cut > 0 else BLOCK_CHARACTERS]


def _end(block: str) -> str:
    """The last characters of *block*, from the beginning of a word."""
    if len(block) <= BLOCK_CHARACTERS:
        return block
    start = len(block) - BLOCK_CHARACTERS
    cut = block.find(" ", start - 1, len(block) - BLOCK_CHARACTERS // 2)
    return block[cut + 1 if cut >= 0 else start :]
