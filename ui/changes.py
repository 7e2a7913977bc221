"""What is otherwise between two texts, in pieces that a page can mark. Pure."""

from __future__ import annotations

import difflib
import os
import re

Piece = tuple[str, str]
"""A mark and a text: '' for what both have, '-' for what goes, '+' for what comes, '…' for what is left out."""

_WORDS = re.compile(r"\w+|\s+|.", re.DOTALL)
_COMPARED = 600
"""Words of each text that are compared one by one; of longer ones the middle counts as changed as a whole."""
_AROUND = 60
"""Characters that are shown before and after a change."""
_LONGEST = 600
"""Characters of one piece that are shown."""


def pieces(before: str, after: str) -> list[Piece]:
    """The way from one text to the other, word by word, with little around each change. None for equal texts."""
    if before == after:
        return []
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    head = len(os.path.commonprefix([a, b]))
    tail = len(os.path.commonprefix([a[head:][::-1], b[head:][::-1]]))
    middle_a, middle_b = a[head : len(a) - tail], b[head : len(b) - tail]
    found = [("", "".join(a[:head])), *_compared(middle_a, middle_b), ("", "".join(a[len(a) - tail :]))]
    whole = [(mark, text) for mark, text in found if text]
    return [piece for i, (mark, text) in enumerate(whole) for piece in _short(mark, text, i == 0, i == len(whole) - 1)]


def _compared(a: list[str], b: list[str]) -> list[Piece]:
    if max(len(a), len(b)) > _COMPARED:
        return [("-", "".join(a)), ("+", "".join(b))]
    found: list[Piece] = []
    for what, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if what == "equal":
            found.append(("", "".join(a[i:j])))
        else:
            found += [("-", "".join(a[i:j])), ("+", "".join(b[k:m]))]
    return found


def _short(mark: str, text: str, first: bool, last: bool) -> list[Piece]:
    """A piece, or its ends where it is long: what both have is shown only beside a change."""
    if mark:
        return [(mark, text)] if len(text) <= _LONGEST else [(mark, text[:_LONGEST]), ("…", _left(text, _LONGEST))]
    begin = "" if first else text[:_AROUND]
    end = "" if last else text[-_AROUND:]
    if len(begin) + len(end) >= len(text):
        return [("", text)]
    return [p for p in (("", begin), ("…", _left(text, len(begin) + len(end))), ("", end)) if p[1]]


def _left(text: str, shown: int) -> str:
    return f"{len(text) - shown:,} characters"
