"""Answers that stop in mid-sentence. Labels, lists, titles, code, verse and notes without full stops are whole."""

from __future__ import annotations

import re

_COMMAS = ",，、،"
_HYPHENS = "-–—"
_CLOSED = frozenset(".!?…。！？｡؟۔।॥།။።:：;；")
"""Characters that close a sentence or a line of one. A text may end with any other sign, a digit or an emoji too."""
_QUOTES = frozenset("\"'`*_~”’»」』》〉)]}）】 ")
_SENTENCE = re.compile(r"[.!?…]['\"”’»)\]*_]{0,3}(?=\s)|[。！？｡؟۔।॥።]")
"""Where a sentence ends and another begins."""
_ITEM = re.compile(r"\s{0,8}(?:[-*•+–—#>|]|\d{1,3}[.):]|[A-Za-z][.)]\s|\S{1,30}:\s|\*\*)")
"""Items of lists, headings, quotations, rows of tables, `key: value`."""
_CODE = re.compile(r"[{}<>=;$\\|_@#/]|\w\(|\)\.|::|->|\w\.\w|\s[*+]\s|^\s*(?:return|import|def|print)\b")
_FENCE = re.compile(r"^[ \t]{0,12}```", re.MULTILINE)
_NAMED = re.compile(r"(?:^|\s)[-–—~]\s?(?:[^\W\d_]\S*\s?){1,6}$")
"""Who said it, behind a quotation."""
_LETTERS = re.compile(r"[^\W\d_]")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_LAST_LINE = 8
"""A last line of fewer words is a title, a name under a letter, a line of verse."""
_WIDE_WORD = 2
"""In Chinese and Japanese so many characters stand for a word."""
_SENTENCES = 2
"""So many sentences have to be closed, before one that is not is unlike the others."""
_NEAR = 160
"""Characters between a bracket that is left open and the end. A bracket further away has been forgotten."""
_TAIL = 4000
"""So many characters at the end are looked at."""

_NO_END = frozenset(
    "and or but nor the an because than if whose "  # English
    "pero porque que del el los las un una con sin "  # Spanish
    "et ou mais parce que du des les le une "  # French
    "und oder aber weil dass denn der das ein eine einen dem "  # German
    "ou mas dos das um uma "  # Portuguese
    "ma perché che della dei degli il gli uno "  # Italian
    "en of maar omdat dat de het een "  # Dutch
    "и или но что потому чтобы если "  # Russian
    "و أو لكن لأن أن التي الذي".split()
)
"""Words that no sentence ends with in any language: not "die", "do" or "y", the variable."""


def cut_off(answer: str) -> str:
    """How it stops, as part of a sentence, or '' where it is whole as far as can be told."""
    text = answer.rstrip()
    if "```" in text and not text.endswith("```") and len(_FENCE.findall(text)) % 2:
        return "ends within a block of code"
    text = text[-_TAIL:]
    if not text or not (text[-1].isalpha() or text[-1] in _COMMAS or text[-1] in _HYPHENS):
        return ""
    line = text[text.rfind("\n") + 1 :].strip()
    words = line.split()
    size = len(words) + len(_WIDE.findall(line)) // _WIDE_WORD
    if size < 4 or _CODE.search(words[-1]) or _NAMED.search(line[-80:]):
        return ""
    return _by_its_last_character(line, words) or _by_its_others(text, line, size)


def _by_its_last_character(line: str, words: list[str]) -> str:
    last, word = line[-1], words[-1].strip(",-–—").lower()
    if _CODE.search(line):
        return ""
    if last in _COMMAS:
        return "ends with a comma"
    if last in _HYPHENS:
        return "ends with a hyphen" if _LETTERS.match(words[-1]) else ""
    if _is_open(line):
        return "ends within brackets or quotes"
    if word in _NO_END and not words[-1].istitle() and not words[-1].isupper():
        return f"ends with “{word}”"
    return ""


def _is_open(line: str) -> bool:
    """A bracket or a quotation mark is opened near the end, and not closed."""
    line = line[-_NEAR:]
    if any(line.rfind(begin) > line.rfind(end) for begin, end in ("()", "[]", "“”", "«»", "「」", "（）")):
        return True
    return line.count('"') % 2 == 1 and re.search(r'(?:^|\s)"\w', line[line.rfind('"') - 1 :]) is not None


def _by_its_others(text: str, line: str, size: int) -> str:
    """A line of prose that ends with a letter, where other sentences are closed."""
    if size < _LAST_LINE or not line[-1].isalpha() or _ITEM.match(line) or _CODE.search(line):
        return ""
    if len(_SENTENCE.findall(text)) < _SENTENCES:
        return ""
    lines = [other for part in text.split("\n")[:-1] if len((other := part.strip()).split()) >= _LAST_LINE]
    closed = sum(other.rstrip("".join(_QUOTES))[-1:] in _CLOSED for other in lines)
    if lines and 2 * closed < len(lines):
        return ""  # that is how it is written
    if not lines and len(_SENTENCE.findall(line)) < _SENTENCES:
        return ""
    return "ends without a full stop, unlike its other sentences"
