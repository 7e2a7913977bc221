"""The schema of a store's file: made for a new one, and brought up for one that an earlier FT Flow wrote."""

from __future__ import annotations

import json
import sqlite3
import time

from ..errors import FTError
from . import audited, conversations, operations, search, views

CURRENT = 3


def to_current(db: sqlite3.Connection) -> None:
    """Whole or not at all. Raises FTError for the file of a newer FT Flow."""
    if _version(db) == CURRENT:
        return
    if _version(db) == 0:
        _write_ahead(db)
    db.execute("BEGIN IMMEDIATE")
    found = _version(db)  # another process may have been faster
    if found > CURRENT:
        raise FTError("the dataset was written by a newer FT Flow", "Update FT Flow.")
    if found == 0:
        _create(db)
    elif found == 1:
        _from_1(db)
    elif found == 2:
        _from_2(db)
    db.execute(f"PRAGMA user_version = {CURRENT}")
    db.execute("COMMIT")


def _write_ahead(db: sqlite3.Connection) -> None:
    """Of several processes that open a new file at once each wants this, and here SQLite lets nobody wait.

    So it is tried again, for as long as it waits elsewhere (https://sqlite.org/c3ref/busy_handler.html).
    """
    (wait_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    until = time.monotonic() + wait_ms / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def _create(db: sqlite3.Connection) -> None:
    for statement in conversations.SCHEMA + operations.SCHEMA + views.SCHEMA + search.SCHEMA + audited.SCHEMA:
        db.execute(statement)
    db.execute("INSERT INTO settings VALUES ('store', HEX(RANDOMBLOB(16)))")


def _from_2(db: sqlite3.Connection) -> None:
    """Version 2 knew no audit."""
    for statement in audited.SCHEMA:
        db.execute(statement)
    db.execute("ALTER TABLE blocks ADD COLUMN audited INTEGER NOT NULL DEFAULT 0")


def _from_1(db: sqlite3.Connection) -> None:
    """Version 1 kept the text in the rows, and of a change only the side that was not in force."""
    for view in views.VIEWS:
        db.execute(f"DROP INDEX view_{view}")
    db.execute("DROP INDEX operations_by_state")
    db.execute("DROP TABLE blocks")
    for table in ("settings", "rows", "operations", "changes"):
        db.execute(f"ALTER TABLE {table} RENAME TO {table}_1")
    _create(db)
    db.execute("INSERT INTO settings SELECT * FROM settings_1")
    with conversations.staging(db):
        _stage(db, "SELECT id, NULL, origin, messages FROM rows_1 ORDER BY id")
        kept = conversations.keep_staged(db)
        db.execute(
            "INSERT INTO rows SELECT id, version, alive, status, split, ? + n FROM rows_1 JOIN staged ON row_id = id",
            (kept,),
        )
    with conversations.staging(db):
        _stage(
            db,
            "SELECT row_id, operation, origin, changes_1.other FROM changes_1 JOIN rows_1 ON rows_1.id = row_id"
            " JOIN operations_1 ON operations_1.id = operation WHERE kind = 'messages' ORDER BY operation, row_id",
        )
        kept = conversations.keep_staged(db)
        db.execute(
            "UPDATE changes_1 SET other = ? + n FROM staged"
            " WHERE operation = seen AND changes_1.row_id = staged.row_id",
            (kept,),
        )
    db.execute("UPDATE operations_1 SET kind = 'conversation' WHERE kind = 'messages'")
    _log_from_1(db)
    views.recount_range(db, 0, db.execute("SELECT COALESCE(MAX(id), 0) FROM rows").fetchone()[0])
    for table in ("settings", "rows", "operations", "changes"):
        db.execute(f"DROP TABLE {table}_1")


def _stage(db: sqlite3.Connection, query: str) -> None:
    """Rows as `query` gives them: row, operation, origin, messages."""
    found = db.execute(query)
    conversations.stage(db, ((row, seen, conversations.read(text, origin)) for row, seen, origin, text in found))


def _log_from_1(db: sqlite3.Connection) -> None:
    """Both sides of every change: walks back from now to the beginning, and forth to the last thing undone."""
    db.execute(
        "INSERT INTO operations(id, parent, what, who, at, state, reversed_by, reversed_at, first, last, part_of)"
        " SELECT id, 0, what, who, at, state, reversed_by, reversed_at, first, last, part_of FROM operations_1"
    )
    found = db.execute("SELECT id, kind, state, other FROM operations_1 ORDER BY id").fetchall()
    done = [r for r in found if r["state"] == "done"]
    undone = [r for r in found if r["state"] == "undone"]
    dropped = [r for r in found if r["state"] == "dropped"]  # kept for the record: they can never be done again
    for way, here, there in (
        (reversed(done), "after", "before"),
        (undone, "before", "after"),
        (dropped, "before", "after"),
    ):
        db.execute("CREATE TEMP TABLE now(field, row_id, value, PRIMARY KEY(field, row_id)) WITHOUT ROWID")
        settings = dict(map(tuple, db.execute("SELECT key, value FROM settings_1")))
        for operation in way:
            _both_sides(db, operation, here, there, settings)
        db.execute("DROP TABLE now")
    chain = [r["id"] for r in done + undone]
    db.executemany("UPDATE operations SET parent = ? WHERE id = ?", zip([0, *chain], chain))


def _both_sides(
    db: sqlite3.Connection, operation: sqlite3.Row, here: str, there: str, settings: dict[str, str]
) -> None:
    """`here` is the side in force where the walk stands, `there` the one that version 1 kept."""
    id, field, other = operation["id"], operation["kind"], json.loads(operation["other"] or "{}")
    sides = {there: json.dumps(other), here: json.dumps({key: settings.get(key, "") for key in other})}
    db.execute("UPDATE operations SET before = ?, after = ? WHERE id = ?", (sides["before"], sides["after"], id))
    settings.update(other)
    if field not in operations.FIELDS:
        return
    db.execute(
        f"INSERT INTO changes(operation, field, row_id, {there}, {here})"
        " SELECT operation, :field, c.row_id, other,"
        f" COALESCE((SELECT value FROM now WHERE field = :field AND row_id = c.row_id), {field})"
        " FROM changes_1 AS c JOIN rows ON id = c.row_id WHERE operation = :id",
        {"field": field, "id": id},
    )
    db.execute(f"INSERT OR REPLACE INTO now SELECT field, row_id, {there} FROM changes WHERE operation = ?", (id,))
