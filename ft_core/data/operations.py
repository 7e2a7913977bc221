"""The operations log of a store: every change is one operation, and undo is a reversal of it.

An operation keeps both sides of what it changed, so undo puts one back and redo the other, and both survive a restart.
Rows that were added are kept as a range of ids instead, and are switched off and on, so an import costs one line here
whatever its size. Rows never leave the table. Each operation knows the one that it was done on top of: what was undone
for good hangs on as a side branch, and a named version is one operation of the tree (see versions.py).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from . import views

SCHEMA = (
    "CREATE TABLE settings(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE rows(
    id INTEGER PRIMARY KEY,
    version INTEGER NOT NULL DEFAULT 1,  -- counts the row's changes
    alive INTEGER NOT NULL DEFAULT 1,    -- 0 while its import is undone, or it is deleted
    status TEXT NOT NULL,                -- candidate, accepted, rejected
    split TEXT NOT NULL DEFAULT '',      -- train, heldout, or '' before there is a split
    conversation INTEGER NOT NULL
)""",
    """CREATE TABLE operations(
    id INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,             -- the operation that was the last one done, 0 at the beginning
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    at REAL NOT NULL,                    -- unix seconds
    state TEXT NOT NULL DEFAULT 'done',  -- as in Operation
    reversed_by TEXT NOT NULL DEFAULT '',
    reversed_at REAL,
    first INTEGER,                       -- of rows that it added: the ids, from first to last
    last INTEGER,
    part_of TEXT NOT NULL DEFAULT '',    -- what an addition is a part of, so that the next part joins it
    before TEXT NOT NULL DEFAULT '{}',   -- the settings that it changed, as JSON objects
    after TEXT NOT NULL DEFAULT '{}'
)""",
    "CREATE INDEX operations_by_state ON operations(state, id)",
    """CREATE TABLE changes(
    operation INTEGER NOT NULL,
    field TEXT NOT NULL,                 -- the column of rows
    row_id INTEGER NOT NULL,
    before NOT NULL,
    after NOT NULL,
    PRIMARY KEY(operation, field, row_id)
) WITHOUT ROWID""",
    """CREATE TABLE versions(
    name TEXT PRIMARY KEY,
    operation INTEGER NOT NULL,          -- the last one done when it was named
    who TEXT NOT NULL,
    at REAL NOT NULL                     -- unix seconds
) WITHOUT ROWID""",
)

FIELDS = ("alive", "status", "split", "conversation")
"""The columns of rows that operations change."""


@dataclass(frozen=True)
class Operation:
    """One line of the log. `state` is done, undone, or dropped: undone for good, because something else was done."""

    id: int
    what: str
    who: str
    at: float
    """Unix seconds."""
    state: str


def record(db: sqlite3.Connection, what: str, who: str, **extra: object) -> int:
    """A new operation, and with it the end of what could be redone. Returns its id."""
    db.execute("UPDATE operations SET state = 'dropped' WHERE state = 'undone'")
    values = {"parent": head(db), "what": what, "who": who, "at": time.time(), **extra}
    return db.execute(
        f"INSERT INTO operations({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", list(values.values())
    ).lastrowid


def head(db: sqlite3.Connection) -> int:
    """The last operation that is done, 0 when there is none."""
    return db.execute("SELECT COALESCE(MAX(id), 0) FROM operations WHERE state = 'done'").fetchone()[0]


def record_add(
    db: sqlite3.Connection, first: int, last: int, who: str, part_of: str = "", done: str = "added"
) -> None:
    """The operation of rows that were just inserted; it joins the one before when both are parts of the same."""
    before = db.execute(
        "SELECT * FROM operations WHERE id = (SELECT MAX(id) FROM operations)"
        " AND NOT EXISTS (SELECT 1 FROM versions WHERE operation = operations.id)"
    ).fetchone()
    if part_of and before and (before["part_of"], before["state"], before["last"]) == (part_of, "done", first - 1):
        what = f"{counted(last - before['first'] + 1)} {done}"
        db.execute("UPDATE operations SET last = ?, what = ? WHERE id = ?", (last, what, before["id"]))
    else:
        record(db, f"{counted(last - first + 1)} {done}", who, first=first, last=last, part_of=part_of)
    views.recount_range(db, first, last)


def change(
    db: sqlite3.Connection,
    field: str,
    wanted: Iterable[tuple[int, object]],
    what: str,
    who: str,
    settings: dict[str, str] | None = None,
) -> int:
    """Sets `field` of living rows by id, and settings with it, as one operation. Returns how many rows that changed.

    Rows that have the value already, are deleted or do not exist are left alone; when nothing is left to change there
    is no operation. `{n}` in `what` becomes the number of rows.
    """
    db.execute("CREATE TEMP TABLE wanted(row_id INTEGER PRIMARY KEY, value)")
    db.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?)", wanted)
    operation = next_id(db)
    changed = note_changes(db, operation, field, "SELECT row_id, value FROM wanted", "alive = 1")
    db.execute("DROP TABLE wanted")
    return finish(db, operation, changed, what, who, settings or {})


def next_id(db: sqlite3.Connection) -> int:
    """The id that the next operation gets."""
    return db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM operations").fetchone()[0]


def note_changes(db: sqlite3.Connection, operation: int, field: str, wanted: str, which: str = "TRUE") -> int:
    """Writes down both sides where a row's `field` is to change; `wanted` selects row_id and value.

    Returns how many.
    """
    return db.execute(
        f"INSERT INTO changes SELECT ?, ?, row_id, {field}, value FROM ({wanted}) CROSS JOIN rows ON id = row_id"
        f" WHERE {which} AND {field} IS NOT value",
        (operation, field),
    ).rowcount


def finish(
    db: sqlite3.Connection,
    operation: int,
    changed: int,
    what: str,
    who: str,
    settings: dict[str, str],
    added: tuple[int, int] | None = None,
) -> int:
    """Makes an operation of the changes that were noted under its id, and does them. Returns `changed`.

    `added` is the range of ids of rows that were just inserted, which the operation brings too.
    """
    before = {key: setting(db, key) for key in settings}
    if changed or added or before != settings:
        sides = {"before": json.dumps(before), "after": json.dumps(settings)}
        first, last = added or (None, None)
        record(db, what.replace("{n}", counted(changed)), who, id=operation, first=first, last=last, **sides)
        if added:
            views.recount_range(db, *added)
        _put(db, operation, "after")
        _store_settings(db, settings)
    return changed


def counted(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"


def configure(db: sqlite3.Connection, settings: dict[str, str], what: str, who: str) -> None:
    """Sets settings as one operation; none when they are so already."""
    finish(db, next_id(db), 0, what, who, settings)


def setting(db: sqlite3.Connection, key: str) -> str:
    found = db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
    return found[0] if found else ""


def _store_settings(db: sqlite3.Connection, settings: dict[str, str]) -> None:
    db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())


def undo(db: sqlite3.Connection, who: str) -> str | None:
    """Reverses the last operation that is done and returns what it was; None when there is none."""
    return _step(db, "SELECT * FROM operations WHERE state = 'done' ORDER BY id DESC LIMIT 1", "undone", who)


def redo(db: sqlite3.Connection, who: str) -> str | None:
    """Does again the operation that was undone last; None when there is none."""
    return _step(db, "SELECT * FROM operations WHERE state = 'undone' ORDER BY id LIMIT 1", "done", who)


def _step(db: sqlite3.Connection, query: str, state: str, who: str) -> str | None:
    operation = db.execute(query).fetchone()
    if operation is None:
        return None
    side = "after" if state == "done" else "before"
    if operation["first"] is not None:
        db.execute(
            "UPDATE rows SET alive = ?, version = version + 1 WHERE id BETWEEN ? AND ?",
            (state == "done", operation["first"], operation["last"]),
        )
        views.recount_range(db, operation["first"], operation["last"])
    _put(db, operation["id"], side)
    _store_settings(db, json.loads(operation[side]))
    db.execute(
        "UPDATE operations SET state = ?, reversed_by = ?, reversed_at = ? WHERE id = ?",
        (state, who, time.time(), operation["id"]),
    )
    return operation["what"]


def _put(db: sqlite3.Connection, operation: int, side: str) -> None:
    """The rows get what the operation noted on that side."""
    for field in FIELDS:
        done = db.execute(
            f"UPDATE rows SET {field} = changes.{side}, version = version + 1 FROM changes"
            " WHERE operation = ? AND field = ? AND id = row_id",
            (operation, field),
        )
        if done.rowcount:
            views.recount_changed(db, operation, field)
