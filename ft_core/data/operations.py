"""The operations log of a store: every change is one operation, and undo is a reversal of it.

An operation keeps the *other side* of what it changed: the old values while it is done, the new ones while it is
undone. Reversing it swaps the two, so undo and redo are the same code, and both survive a restart. Rows that were
added are kept as a range of ids instead, and are switched off and on, so an import costs one line here whatever its
size. Rows never leave the table.
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
    origin TEXT NOT NULL,
    messages TEXT NOT NULL               -- Conversation.canonical(), at the end so that long text lies out of the way
)""",
    """CREATE TABLE operations(
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,                  -- the column of rows that it changed, or add, or settings
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    at REAL NOT NULL,                    -- unix seconds
    state TEXT NOT NULL DEFAULT 'done',  -- as in Operation
    reversed_by TEXT NOT NULL DEFAULT '',
    reversed_at REAL,
    first INTEGER,                       -- add: the ids, from first to last
    last INTEGER,
    part_of TEXT NOT NULL DEFAULT '',    -- add: what it is a part of, so that the next part joins it
    other TEXT                           -- the other side of the settings that it changed, as a JSON object
)""",
    "CREATE INDEX operations_by_state ON operations(state, id)",
    """CREATE TABLE changes(
    operation INTEGER NOT NULL,
    row_id INTEGER NOT NULL,
    other NOT NULL,                      -- the other side of the column that the operation changed
    PRIMARY KEY(operation, row_id)
) WITHOUT ROWID""",
)


@dataclass(frozen=True)
class Operation:
    """One line of the log. `state` is done, undone, or dropped: undone for good, because something else was done."""

    id: int
    what: str
    who: str
    at: float
    """Unix seconds."""
    state: str


def record(db: sqlite3.Connection, kind: str, what: str, who: str, **extra: object) -> int:
    """A new operation, and with it the end of what could be redone. Returns its id."""
    db.execute("UPDATE operations SET state = 'dropped' WHERE state = 'undone'")
    values = {"kind": kind, "what": what, "who": who, "at": time.time(), **extra}
    return db.execute(
        f"INSERT INTO operations({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", list(values.values())
    ).lastrowid


def record_add(db: sqlite3.Connection, first: int, last: int, who: str, part_of: str) -> None:
    """The operation of rows that were just inserted; it joins the one before when both are parts of the same."""
    before = db.execute("SELECT * FROM operations ORDER BY id DESC LIMIT 1").fetchone()
    if part_of and before and (before["part_of"], before["state"], before["last"]) == (part_of, "done", first - 1):
        what = f"{counted(last - before['first'] + 1)} added"
        db.execute("UPDATE operations SET last = ?, what = ? WHERE id = ?", (last, what, before["id"]))
    else:
        record(db, "add", f"{counted(last - first + 1)} added", who, first=first, last=last, part_of=part_of)
    views.recount_range(db, first, last)


def change(
    db: sqlite3.Connection,
    column: str,
    wanted: Iterable[tuple[int, object]],
    what: str,
    who: str,
    settings: dict[str, str] | None = None,
) -> int:
    """Sets `column` of living rows by id, and settings with it, as one operation. Returns how many rows that changed.

    Rows that have the value already, are deleted or do not exist are left alone; when nothing is left to change there
    is no operation. `{n}` in `what` becomes the number of rows.
    """
    db.execute("CREATE TEMP TABLE wanted(row_id INTEGER PRIMARY KEY, value)")
    db.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?)", wanted)
    db.execute(
        "DELETE FROM wanted WHERE NOT EXISTS"
        f" (SELECT 1 FROM rows WHERE id = row_id AND alive = 1 AND {column} IS NOT value)"
    )
    changed = db.execute("SELECT COUNT(*) FROM wanted").fetchone()[0]
    settings = settings or {}
    old = {key: setting(db, key) for key in settings}
    if changed or old != settings:
        operation = record(db, column, what.format(n=counted(changed)), who, other=json.dumps(old))
        db.execute(f"INSERT INTO changes SELECT ?, id, {column} FROM wanted JOIN rows ON id = row_id", (operation,))
        db.execute(f"UPDATE rows SET {column} = value, version = version + 1 FROM wanted WHERE id = row_id")
        _store_settings(db, settings)
        if column != "messages":
            views.recount_changed(db, operation)
    db.execute("DROP TABLE wanted")
    return changed


def counted(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"


def configure(db: sqlite3.Connection, settings: dict[str, str], what: str, who: str) -> None:
    """Sets settings as one operation; none when they are so already."""
    old = {key: setting(db, key) for key in settings}
    if old != settings:
        record(db, "settings", what, who, other=json.dumps(old))
        _store_settings(db, settings)


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
    if operation["kind"] == "add":
        db.execute(
            "UPDATE rows SET alive = ?, version = version + 1 WHERE id BETWEEN ? AND ?",
            (state == "done", operation["first"], operation["last"]),
        )
        views.recount_range(db, operation["first"], operation["last"])
    elif operation["kind"] != "settings":
        _swap_rows(db, operation["id"], operation["kind"])
        views.recount_changed(db, operation["id"])
    if operation["other"] is not None:
        there = json.loads(operation["other"])
        here = {key: setting(db, key) for key in there}
        _store_settings(db, there)
        db.execute("UPDATE operations SET other = ? WHERE id = ?", (json.dumps(here), operation["id"]))
    db.execute(
        "UPDATE operations SET state = ?, reversed_by = ?, reversed_at = ? WHERE id = ?",
        (state, who, time.time(), operation["id"]),
    )
    return operation["what"]


def _swap_rows(db: sqlite3.Connection, operation: int, column: str) -> None:
    """The rows get what the operation keeps, and the operation keeps what the rows had."""
    db.execute("CREATE TEMP TABLE here(row_id INTEGER PRIMARY KEY, value)")
    db.execute(
        f"INSERT INTO here SELECT id, {column} FROM changes JOIN rows ON id = row_id WHERE operation = ?", (operation,)
    )
    db.execute(
        f"UPDATE rows SET {column} = other, version = version + 1 FROM changes WHERE operation = ? AND id = row_id",
        (operation,),
    )
    db.execute(
        "UPDATE changes SET other = value FROM here WHERE operation = ? AND changes.row_id = here.row_id",
        (operation,),
    )
    db.execute("DROP TABLE here")
