"""Pasted text: what kind of file it would be. It is read as that file is, and people know it as "pasted text".

[...], {...}, lines of {...}            JSON
Q: ... A: ...                           questions and answers
two lines or more of as many columns    a table, by tabs (a spreadsheet's copy) or by , ; |; the first line has
                                        the names of the columns
anything else                           plain text, a row for each paragraph
"""

from __future__ import annotations

import csv
import re
from itertools import islice

from ..errors import FTError
from .text_files import asks

NAME = "pasted text"
MOST = 50_000_000
"""Characters. More is a file."""
_LOOK_AT = 5
_JSON = re.compile(r'\s*(\[\s*[\[{"\]]|\{\s*["}])')
_LONGEST_NAME = 60
"""Characters of a column's name, in a table by commas: sentences have commas too."""


def kind(text: str) -> str:
    """The ending of the file that a text would be. Raises FTError when there is none, or too much of it."""
    text = text.lstrip("\ufeff")
    if not text.strip():
        raise FTError("there is no pasted text", "Copy a table, JSON, or questions and answers, and paste it.")
    if len(text) > MOST:
        raise FTError(f"the pasted text has {len(text):,} characters", "Save it to a file, and import that.")
    if _JSON.match(text):
        return ".json"
    if asks(text):
        return ".txt"
    lines = [line for line in islice(text.lstrip("\r\n").splitlines(), 200) if line.strip()]
    if _columns(lines, "\t") > 1:
        return ".tsv"
    names = re.split("[,;|]", lines[0])
    if max(_columns(lines, mark) for mark in ",;|") > 1 and all(len(name) <= _LONGEST_NAME for name in names):
        return ".csv"
    return ".txt"


def _columns(lines: list[str], mark: str) -> int:
    """How many columns the first rows have, 0 when they do not agree or there is one row alone."""
    try:
        rows = [row for row in islice(csv.reader(lines, delimiter=mark), _LOOK_AT) if row]
    except csv.Error:
        return 0
    counts = {len(row) for row in rows}
    return counts.pop() if len(counts) == 1 and len(rows) > 1 else 0
