"""Named versions: an operation in the log's tree under a name. What lies between two of them follows from the log.

From one version to another the way leads up the tree, where operations are taken back, and down again, where they are
done. What the last of them says about a row's field is how it stands there; where none says anything, it is as now.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..conversation import Conversation
from ..errors import FTError
from . import conversations, operations
from .store import Store


@dataclass(frozen=True)
class Version:
    name: str
    who: str
    at: float
    """Unix seconds."""
    current: bool
    """Nothing has changed since."""


@dataclass(frozen=True)
class State:
    """How a row stands in one version."""

    conversation: Conversation
    status: str
    split: str


@dataclass(frozen=True)
class Change:
    """A row that two versions do not have alike. `before` is None for an added row, `after` for a removed one."""

    id: int
    kind: Literal["added", "removed", "changed"]
    before: State | None
    after: State | None


@dataclass(frozen=True)
class Difference:
    """Numbers of rows, the system prompts, and a page of the changes in the order of ids."""

    added: int
    removed: int
    changed: int
    system: tuple[str, str]
    """Before and after."""
    changes: tuple[Change, ...]


def name(store: Store, name: str, who: str = "") -> Version:
    """Names the dataset as it is now. Raises FTError for a name that is empty or taken."""
    name = name.strip()
    with store.writing() as db:
        if not name or _named(db, name) is not None:
            raise FTError(
                f"there is a version {name!r} already" if name else "a version needs a name", "Choose another name."
            )
        version = Version(name, who, time.time(), True)
        db.execute("INSERT INTO versions VALUES (?, ?, ?, ?)", (name, operations.head(db), who, version.at))
    return version


def versions(store: Store) -> list[Version]:
    """The last first."""
    with store.reading() as db:
        here = operations.head(db)
        found = db.execute("SELECT name, who, at, operation FROM versions ORDER BY at DESC, name")
        return [Version(r["name"], r["who"], r["at"], r["operation"] == here) for r in found]


def diff(store: Store, before: str, after: str = "", offset: int = 0, limit: int = 100) -> Difference:
    """What is otherwise in `after`, a version or, as '', now. Raises FTError for a version that does not exist."""
    with store.reading() as db:
        settings = [_go(db, table, _operation(db, version)) for table, version in (("a", before), ("b", after))]
        db.execute(f"CREATE TEMP TABLE differing AS {_DIFFERING}")
        counts = dict(map(tuple, db.execute("SELECT kind, COUNT(*) FROM differing GROUP BY kind")))
        page = db.execute(_PAGE, (limit, offset)).fetchall()
        for table in ("a", "b", "differing"):
            db.execute(f"DROP TABLE {table}")
    return Difference(
        *(counts.get(kind, 0) for kind in ("added", "removed", "changed")),
        system=(settings[0]["system"], settings[1]["system"]),
        changes=tuple(
            Change(
                r["id"],
                r["kind"],
                None if r["kind"] == "added" else State(conversations.read(r[2], r["origin"]), r[4], r[5]),
                None if r["kind"] == "removed" else State(conversations.read(r[3], r["origin"]), r[6], r[7]),
            )
            for r in page
        ),
    )


def restore(store: Store, name: str, who: str = "") -> int:
    """Makes the dataset what the version is, as one operation. Returns how many changes of rows that took.

    Raises FTError for a version that does not exist.
    """
    with store.writing() as db:
        settings = _go(db, "there", _operation(db, name))
        operation = operations.next_id(db)
        changed = sum(
            operations.note_changes(
                db,
                operation,
                field,
                f"SELECT row_id, value FROM there WHERE field = '{field}' ORDER BY row_id",
                _say_otherwise("conversation", "value") if field == "conversation" else "TRUE",
            )
            for field in operations.FIELDS
        )
        db.execute("DROP TABLE there")
        operations.finish(db, operation, changed, f"back to version {name}", who, settings)
    return changed


def _say_otherwise(one: str, other: str) -> str:
    """Of two columns with numbers of conversations: a text that came back has another number than the first time."""
    said = "(SELECT messages FROM conversations WHERE id = {})"
    return f"({one} <> {other} AND {said.format(one)} <> {said.format(other)})"


# Rows that are not the same in the temporary tables a and b; a row's field that is in neither is as now.
_SIDES = ", ".join(
    f"COALESCE((SELECT value FROM {t} WHERE {t}.row_id = rows.id AND field = '{field}'), {field}) AS {t}_{field}"
    for field in operations.FIELDS
    for t in ("a", "b")
)
_DIFFERING = (
    "SELECT *,"
    " CASE WHEN a_alive < b_alive THEN 'added' WHEN a_alive > b_alive THEN 'removed' ELSE 'changed' END AS kind"
    f" FROM (SELECT rows.id, {_SIDES} FROM (SELECT row_id FROM a UNION SELECT row_id FROM b) AS touched"
    " CROSS JOIN rows ON rows.id = touched.row_id)"
    " WHERE a_alive <> b_alive"
    " OR a_alive AND ((a_status, a_split) <> (b_status, b_split)"
    f" OR {_say_otherwise('a_conversation', 'b_conversation')})"
    " ORDER BY id"
)
_PAGE = (
    "SELECT differing.id, kind, ca.messages, cb.messages, a_status, a_split, b_status, b_split, cb.origin"
    " FROM differing CROSS JOIN conversations AS ca ON ca.id = a_conversation"
    " CROSS JOIN conversations AS cb ON cb.id = b_conversation ORDER BY differing.id LIMIT ? OFFSET ?"
)


def _named(db: sqlite3.Connection, name: str) -> int | None:
    found = db.execute("SELECT operation FROM versions WHERE name = ?", (name,)).fetchone()
    return found and found[0]


def _operation(db: sqlite3.Connection, version: str) -> int:
    if not version:
        return operations.head(db)
    found = _named(db, version)
    if found is None:
        known = ", ".join(r[0] for r in db.execute("SELECT name FROM versions ORDER BY at"))
        raise FTError(
            f"there is no version {version!r}", f"Versions are {known}." if known else "None has a name yet."
        )
    return found


def _go(db: sqlite3.Connection, table: str, to: int) -> dict[str, str]:
    """Makes a temporary table (row_id, field, value) of what may be otherwise where operation `to` was the last.

    Returns the settings as they were then, of those that were ever set.
    """
    db.execute(
        f"CREATE TEMP TABLE {table}(row_id INTEGER, field TEXT, value, PRIMARY KEY(row_id, field)) WITHOUT ROWID"
    )
    settings = {key: operations.setting(db, key) for key in ("system", "split")}
    for operation, side in _way(db, operations.head(db), to):
        db.execute(
            f"INSERT OR REPLACE INTO {table} SELECT row_id, field, {side} FROM changes WHERE operation = ?",
            (operation["id"],),
        )
        if operation["first"] is not None:
            db.execute(
                f"INSERT OR REPLACE INTO {table} SELECT id, 'alive', ? FROM rows WHERE id BETWEEN ? AND ?",
                (int(side == "after"), operation["first"], operation["last"]),
            )
        settings.update(json.loads(operation[side]))
    return settings


def _way(db: sqlite3.Connection, here: int, there: int) -> Iterator[tuple[sqlite3.Row, str]]:
    """The operations between two, in the order of going, each with the side that holds after it."""
    up, down = _line(db, here), _line(db, there)
    yield from ((operation, "before") for id, operation in up.items() if id not in down)
    yield from ((operation, "after") for id, operation in reversed(down.items()) if id not in up)


def _line(db: sqlite3.Connection, operation: int) -> dict[int, sqlite3.Row]:
    """An operation and those that it was done on top of, up to the first."""
    found = db.execute(
        "WITH RECURSIVE line(id) AS (SELECT ? UNION ALL SELECT parent FROM line JOIN operations USING (id))"
        " SELECT operations.* FROM line JOIN operations USING (id)",
        (operation,),
    )
    return {r["id"]: r for r in found}
