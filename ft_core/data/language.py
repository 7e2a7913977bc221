"""Which language a text is in, and how many of its words are misspelt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from itertools import islice

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier
from spellchecker import SpellChecker

from .repetition import WORD

SURE = 0.5
"""So probable a language has to be. py3langid's probabilities are tempered by length; wrong guesses at greetings, code
and lists of names stay below 0.1, and one of 200 right answers of a real set falls below 0.5."""
LETTERS = 20
"""Fewer say nothing: "positive" is a word of five languages."""
_FIRST = (400, 1000)
"""So many characters are looked at; the second only where the first leave it unsure. It reads about 2 MB/s."""

_FENCE = "```"
_NO_PROSE = tuple(
    (part, re.compile(pattern))
    for part, pattern in (("`", r"`[^`\n]{1,200}+`"), ("://", r"https?://\S++"), ("<", r"<[^<>\n]{1,200}+>"))
)


def prose(text: str) -> str:
    """The text without code, addresses of pages and HTML tags."""
    if _FENCE in text:
        text = "\n".join(text.split(_FENCE)[::2])
    for part, pattern in _NO_PROSE:
        if part in text:
            text = pattern.sub(" ", text)
    return text


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in identifier.labels if len(code) == 2])  # ISO 639-1 has two letters
    identifier.nb_ptc = np.ascontiguousarray(
        identifier.nb_ptc
    )  # else the columns that are left are gathered one by one
    return identifier


@lru_cache(maxsize=64)
def language_of(text: str) -> str:
    """ISO 639-1 code, or '' where the text is too short or it cannot be told with confidence. Code is left out."""
    start = prose(text[: 4 * _FIRST[-1]])
    for size in _FIRST:
        part = start[:size]
        if sum(map(str.isalpha, part)) < LETTERS:
            return ""
        code, probability = _identifier().classify(part)
        if probability >= SURE:
            return code
        if len(start) <= size:
            return ""
    return ""


SPELT = {"en": 0.08, "de": 0.08, "fr": 0.08, "nl": 0.08, "pt": 0.12, "it": 0.12, "ar": 0.15}
"""Language -> share of misspelt words from which on a text is. Of pyspellchecker's lists these are whole enough; those
of es, fa and ru lack a third of the words of plain text ("podemos", "está"); eu and lv have not been measured."""
MISSPELT = 2
"""At least so many."""
GIBBERISH = 0.3
"""Share of words that no list has, near or not: keys hit at random."""
WORDS = 8
"""A text with fewer distinct lower-case words is not looked at."""
_LOOKED_AT = 4_000
"""So many characters, some 250 different words, are enough for a share."""
_SLIPS = 25
"""So many unknown words are compared with known ones; of more, the count is an estimate."""

_ASIDE = re.compile(r"\([^()\n]{1,60}\)|“[^“”\n]{1,60}”|\"[^\"\n]{1,60}\"|\*[^*\n]{1,60}\*|_[^_\n]{1,60}_")
"""Words in brackets, quotes and italics are often of another language, or terms."""
_HALVES = {
    "en": "doesn isn wasn didn couldn wouldn shouldn hasn haven hadn aren weren mustn needn ain etc",
    "fr": "jusqu lorsqu puisqu quelqu aujourd presqu etc",
    "it": "dell all dall nell sull quest quell dev cos etc",
}
"""What an apostrophe leaves."""
_BRITISH = (
    ("our", "or"), ("tre", "ter"), ("bre", "ber"), ("ise", "ize"), ("isa", "iza"), ("isi", "izi"), ("yse", "yze"),
    ("ysi", "yzi"), ("ll", "l"), ("ence", "ense"), ("ae", "e"), ("ogue", "og"), ("œ", "oe"), ("ould", "old"),
    ("amme", "am"), ("sce", "ske"), ("ç", "c"),
)  # fmt: skip
"""The English list is American; œ is French."""


@cache
def _speller(code: str) -> SpellChecker:
    """Loaded once in a process: 0.1 to 0.6 s, 30 to 70 MB."""
    return SpellChecker(language=code)


@cache
def _letters(code: str) -> str:
    """Those that its words are made of."""
    known = _speller(code).word_frequency.dictionary
    counts = Counter("".join(islice(known, 0, None, 20)))
    return "".join(letter for letter, count in counts.items() if count > len(known) / 20 / 500)


def misspelt(answers: Iterable[str], others: Iterable[str], code: str) -> str:
    """How much of the answers is, as part of a sentence, or ''. `others` are the other turns, `code` the language.

    A word is misspelt when the list of the language lacks it and has one that is one slip away: a letter too many,
    too few, wrong, or two swapped. Names, foreign words and terms are mostly not so near to any word. Words with
    capitals or digits, words that the other turns have, and code are left out.
    """
    if code not in SPELT:
        return ""
    found = set(WORD.findall(_ASIDE.sub(" ", prose("\n".join(answers)[:_LOOKED_AT]))))
    words = {word for word in found if len(word) > 2 and word.isalpha() and word == word.lower()}
    if len(words) < WORDS:
        return ""
    known = _speller(code).word_frequency.dictionary
    unknown = {word for word in words if word not in known and word.capitalize() not in found}
    if len(unknown) < MISSPELT or len(unknown) < SPELT[code] * len(words):
        return ""
    unknown -= {word.lower() for other in others for word in WORD.findall(other)}
    unknown -= set(_HALVES.get(code, "").split())
    unknown = {word for word in unknown if not _spelt_elsewhere(word, known)}
    if len(unknown) < MISSPELT:
        return ""
    looked_at = sorted(unknown)[:_SLIPS]
    slips = [word for word in looked_at if 3 < len(word) < 25 and _is_near(word, known, _letters(code))]
    count = round(len(slips) / len(looked_at) * len(unknown))
    if count >= MISSPELT and count >= SPELT[code] * len(words):
        return f"{count} of {len(words)} different words are misspelt: {_some(slips)}"
    if len(unknown) > MISSPELT and len(unknown) >= GIBBERISH * len(words):
        return f"{len(unknown)} of {len(words)} different words are not in the word list: {_some(looked_at)}"
    return ""


def _spelt_elsewhere(word: str, known: Mapping[str, int]) -> bool:
    return any(here in word and word.replace(here, there) in known for here, there in _BRITISH)


def _is_near(word: str, known: Mapping[str, int], letters: str) -> bool:
    """One slip away from a known word. SpellChecker.edit_distance_1 makes them all before the first is looked up."""
    for at in range(len(word) + 1):
        before, after = word[:at], word[at:]
        if before + after[1:] in known or before + after[1:2] + after[:1] + after[2:] in known:
            return True
        if any(before + letter + rest in known for letter in letters for rest in (after, after[1:])):
            return True
    return False


def _some(words: list[str]) -> str:
    return ", ".join(word[:24] for word in words[:3])
