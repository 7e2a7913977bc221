"""What is wrong with the text of one conversation, with reasons that say where and how much. It changes nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from ..conversation import Conversation
from .endings import cut_off
from .language import language_of, misspelt, prose
from .personal import personal, secrets
from .refusals import refusal
from .repetition import WORD, repeated

TEXT_FLAGS = (
    "empty",
    "too_short",
    "too_long",
    "repetitive",
    "misspelt",
    "cut_off",
    "refusal",
    "personal_data",
    "secret",
)
"""Names, in the order in which text_flags gives them."""

WEIGHTS = {
    "empty": 100,  # nothing, or something wrong, is learnt from these
    "template": 100,
    "nothing_learnt": 100,
    "secret": 60,  # these do harm
    "refusal": 50,
    "personal_data": 40,
    "repetitive": 40,
    "leak": 40,
    "cut": 30,  # these are learnt along
    "cut_off": 30,
    "misspelt": 30,
    "language": 30,
    "duplicate": 30,
    "too_short": 20,
    "too_long": 20,
    "near_duplicate": 20,
    "similar": 10,  # may well be meant
}
"""What each flag takes from the score of a row, those of the whole set too."""

LONGEST_ANSWER = 100_000
"""Characters: some 25,000 tokens, more than chat models write at once. What the model's limit cuts is another flag."""
LONGEST_TURN = 1_000_000
"""Characters of any other turn: a whole book."""
_BROKEN = frozenset(("nan", "undefined", "todo", "tbd", "[object object]"))
"""What programs leave where a text should be. "Null", "none" and "n/a" may be answers."""
_WANTS_TEXT = re.compile(
    r"\b(?:explain|describe|tell me about|in detail|step by step|write an? (?:\w+ )?(?:essay|story|article|letter|poem"
    r"|report|blog|e-?mail|paragraph|summary|review|speech|guide)|explica|describe|escribe un|explique|décris"
    r"|écris une?|erkläre|beschreibe|schreibe? ein|descreva|escreva um|spiega|descrivi|scrivi un)\b",
    re.IGNORECASE,
)
_WANTS_WORD = re.compile(
    r"\b(?:words?|label|choose|which|classify|category|yes or no|true or false|only|number)\b", re.I
)
_REQUEST = 300
"""A request that holds a text to work on is longer, and what is in it says nothing."""
_PLACES = 3
"""So many places are told; the others are counted."""


@dataclass(frozen=True)
class Flag:
    name: str
    reason: str
    """Part of a sentence for people: what, how much and in which turn, from 1. Personal data in it is masked."""


def text_flags(conversation: Conversation) -> tuple[Flag, ...]:
    """At most one flag of each name, in the order of TEXT_FLAGS."""
    checks: tuple[tuple[str, Callable[[Conversation], Iterator[str]]], ...] = (
        ("empty", _empty),
        ("too_short", _too_short),
        ("too_long", _too_long),
        ("repetitive", _repetitive),
        ("misspelt", _misspelt),
        ("cut_off", _cut_off),
        ("refusal", _refusal),
        ("personal_data", _personal_data),
        ("secret", _secret),
    )
    return tuple(Flag(name, reason) for name, check in checks if (reason := _reason(check(conversation))))


def language(conversation: Conversation) -> str:
    """ISO 639-1 code of what is answered; '' when that is too short, or unsure."""
    return language_of("\n".join(content for _, content in _answers(conversation)))


def score(names: Iterable[str]) -> int:
    """How good a row with these flags is, 0 to 100: 100 less the weight of each (see WEIGHTS). KeyError for others."""
    return max(0, 100 - sum(WEIGHTS[name] for name in set(names)))


def _reason(found: Iterator[str]) -> str:
    """The first places; the others are counted, up to a hundred of them."""
    reasons = list(islice(dict.fromkeys(islice(found, 100)), 100))
    more = [f"{len(reasons) - _PLACES} more"] if len(reasons) > _PLACES else []
    return "; ".join(reasons[:_PLACES] + more)


def _turns(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Where, what. The worse answer of a preference stands in the place of the last turn."""
    for number, message in enumerate(conversation.messages, 1):
        yield f"turn {number}", message.content
    if conversation.rejected:
        yield "the worse answer", conversation.rejected


def _answers(conversation: Conversation) -> list[tuple[str, str]]:
    """Those that say something."""
    return [
        (f"turn {number}", message.content)
        for number, message in enumerate(conversation.messages, 1)
        if message.role == "assistant" and message.content.strip()
    ]


def _empty(conversation: Conversation) -> Iterator[str]:
    roles = [message.role for message in conversation.messages]
    if "assistant" not in roles:
        yield "there is no answer"
    for number, message in enumerate(conversation.messages, 1):
        if message.role in ("assistant", "user") and not message.content.strip() and not message.more:
            yield f"the {'answer' if message.role == 'assistant' else 'question'} in turn {number} is empty"


def _too_short(conversation: Conversation) -> Iterator[str]:
    asked = ""
    for number, message in enumerate(conversation.messages, 1):
        said = message.content.strip()
        if message.role == "user":
            asked = said
        if message.role != "assistant" or not said or len(said) > 30:
            continue
        if said.lower() in _BROKEN:
            yield f"the answer in turn {number} is only “{said}”"
        elif not any(unicodedata.category(c)[0] in "LNS" for c in said):
            yield f"the answer in turn {number} has no letter or digit"
        elif len(said.split()) == 1 and said.isascii() and len(said) < 15 and _wants_text(asked):
            yield f"the answer in turn {number} is one word, where an explanation or a text was asked for"


def _wants_text(asked: str) -> bool:
    return len(asked) <= _REQUEST and _WANTS_TEXT.search(asked) is not None and _WANTS_WORD.search(asked) is None


def _too_long(conversation: Conversation) -> Iterator[str]:
    for number, message in enumerate(conversation.messages, 1):
        longest = LONGEST_ANSWER if message.role == "assistant" else LONGEST_TURN
        if len(message.content) > longest:
            yield f"turn {number} has {len(message.content):,} characters"


def _repetitive(conversation: Conversation) -> Iterator[str]:
    for place, answer in _answers(conversation):
        text = prose(answer)
        if said := repeated(text, WORD.findall(text)):
            yield f"{said} in {place}"


def _misspelt(conversation: Conversation) -> Iterator[str]:
    answers = [content for _, content in _answers(conversation)]
    others = [message.content for message in conversation.messages if message.role != "assistant"]
    if said := misspelt(answers, others, language(conversation)):
        yield said


def _cut_off(conversation: Conversation) -> Iterator[str]:
    for place, answer in _answers(conversation):
        if said := cut_off(answer):
            yield f"the answer in {place} {said}"


def _refusal(conversation: Conversation) -> Iterator[str]:
    for place, answer in _answers(conversation):
        if said := refusal(answer):
            yield f"the answer in {place} {said}"


def _personal_data(conversation: Conversation) -> Iterator[str]:
    for place, content in _turns(conversation):
        yield from (f"{found} in {place}" for found in personal(content))


def _secret(conversation: Conversation) -> Iterator[str]:
    for place, content in _turns(conversation):
        yield from (f"{found} in {place}" for found in secrets(content))
