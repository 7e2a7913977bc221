"""What a row is among the others: equal to one, nearly so, of the same meaning, leaked, in another language.

Texts are compared once, whatever becomes of the rows afterwards (`compared` in the store has the groups). What follows
for the rows, with those that are rejected left out and the split as it is, is cheap and found anew after each change.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..conversation import Conversation
from . import audited, views
from .diversity import diversity
from .duplicates import near, similar
from .store import Store

PARTS: dict[str, Callable[..., Any]] = {"near": near, "similar": similar, "diversity": diversity}
"""Each takes (id, text) and a tick."""

MAIN_LANGUAGE = 0.8
"""More of the rows than this share a language, and ..."""
ODD_LANGUAGE = 0.02
"""... fewer than this another one (or a single row, of ten or more): these are flagged. Of two languages that a set
is meant to have, both are above it."""
_FEW_LANGUAGES = 10


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is not rejected and whose text was looked at."""

    id: int
    conversation: int
    heldout: bool
    alike: int
    language: str
    near: int | None
    """Number of the group of texts that are nearly equal; None for a text that is like no other, or not compared."""
    similar: int | None
    compared: bool


@dataclass(frozen=True)
class Found:
    """A row's flag among the others."""

    row: int
    flag: str
    conversation: int
    first: int
    reason: str

    @property
    def place(self) -> int:
        return audited.FLAGS.index(self.flag)


def rows(db: sqlite3.Connection) -> list[Row]:
    """In the order of ids."""
    found = db.execute(
        "SELECT rows.id, conversation, split = 'heldout', audited.alike, language, near, similar,"
        " compared.alike IS NOT NULL FROM rows CROSS JOIN audited ON audited.id = conversation"
        f" LEFT JOIN compared ON compared.alike = audited.alike WHERE {views.TRAINED} ORDER BY rows.id"
    )
    return [Row(*r) for r in found]


def texts(store: Store, numbers: Sequence[int], part: str) -> Iterator[tuple[int, str]]:
    """(number of the conversation, text) for one of PARTS: what is asked tells the meaning, else all but the system
    prompt counts, which many rows share."""
    roles = ("user",) if part == "similar" else ("user", "assistant", "tool")
    for number, conversation in store.conversations_by_number(numbers):
        yield number, _said(conversation, roles)


def _said(conversation: Conversation, roles: tuple[str, ...]) -> str:
    return "\n".join(m.content for m in conversation.messages if m.role in roles)


def keep(
    db: sqlite3.Connection, keys: dict[int, int], near: Iterable[Sequence[int]], similar: Iterable[Sequence[int]]
) -> None:
    """What a comparison of conversations by number found; `keys` has the `alike` of each."""
    groups = [{number: i for i, group in enumerate(found) for number in group} for found in (near, similar)]
    db.execute("DELETE FROM compared")
    db.executemany(
        "INSERT OR IGNORE INTO compared VALUES (?, ?, ?)",
        ((key, groups[0].get(number), groups[1].get(number)) for number, key in keys.items()),
    )


@dataclass
class _Firsts:
    """By key, and by number of a group, the first row that has it."""

    alike: dict[int, int] = field(default_factory=dict)
    near: dict[int, int] = field(default_factory=dict)
    similar: dict[int, int] = field(default_factory=dict)

    def like(self, row: Row) -> tuple[str, int] | None:
        """How the first one that is like the row is like it, and its id; the closest way counts."""
        ways = (("alike", row.alike), ("near", row.near), ("similar", row.similar))
        return next(((way, first) for way, key in ways if (first := getattr(self, way).get(key)) is not None), None)

    def add(self, row: Row) -> None:
        self.alike.setdefault(row.alike, row.id)
        if row.near is not None:
            self.near.setdefault(row.near, row.id)
        if row.similar is not None:
            self.similar.setdefault(row.similar, row.id)


_FLAG = {"alike": "duplicate", "near": "near_duplicate", "similar": "similar"}
_LIKE = {"alike": "the same as row {}", "near": "nearly the same as row {}", "similar": "asks much the same as row {}"}


def flagged(rows: Sequence[Row]) -> Iterator[Found]:
    """All flags of rows among the others. Of those that are alike the first one is not flagged."""
    trained, seen = _Firsts(), _Firsts()
    for row in rows:
        if not row.heldout:
            trained.add(row)
    languages = Counter(row.language for row in rows if row.language)
    main, odd = _languages(languages)
    for row in rows:
        if like := seen.like(row):
            way, first = like
            yield Found(row.id, _FLAG[way], row.conversation, first, _LIKE[way].format(first))
        seen.add(row)
        if row.heldout and (like := trained.like(row)):
            way, first = like
            reason = f"held out, but {_LIKE[way].format(first)}, which is trained on"
            yield Found(row.id, "leak", row.conversation, first, reason)
        if row.language in odd:
            reason = f"answers in “{row.language}”, where most rows answer in “{main}”"
            yield Found(row.id, "language", row.conversation, row.id, reason)


def _languages(counts: Counter[str]) -> tuple[str, set[str]]:
    """The language of the set, '' where there is none, and those that do not belong in it."""
    total = counts.total()
    (main, most) = counts.most_common(1)[0] if counts else ("", 0)
    if total < _FEW_LANGUAGES or most <= MAIN_LANGUAGE * total:
        return "", set()
    return main, {code for code, n in counts.items() if n <= max(1, ODD_LANGUAGE * total) and code != main}


def keep_flagged(db: sqlite3.Connection, found: Iterable[Found]) -> None:
    """Writes what is otherwise than before."""
    now = {(f.row, f.place): (f.conversation, f.first, f.reason) for f in found}
    before = {
        (r[0], r[1]): tuple(r)[2:]
        for r in db.execute("SELECT row_id, flag, conversation, first, reason FROM audited_rows")
    }
    gone = before.keys() - now.keys()
    new = [key for key, value in now.items() if before.get(key) != value]
    db.executemany("DELETE FROM audited_rows WHERE row_id = ? AND flag = ?", gone)
    db.executemany("INSERT OR REPLACE INTO audited_rows VALUES (?, ?, ?, ?, ?)", ((*key, *now[key]) for key in new))
    audited.restamp(db, (row for row, _ in (*gone, *new)))
