"""A file that FT Flow wrote with version 1 of the schema opens with all that it had."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import migrate, versions
from ft_core.data.columns import Query
from ft_core.data.store import Counts, Store

# As version 1 made it, to the letter.
SCHEMA_1 = """
CREATE TABLE settings(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rows(id INTEGER PRIMARY KEY, version INTEGER NOT NULL DEFAULT 1, alive INTEGER NOT NULL DEFAULT 1,
    status TEXT NOT NULL, split TEXT NOT NULL DEFAULT '', origin TEXT NOT NULL, messages TEXT NOT NULL);
CREATE TABLE operations(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, what TEXT NOT NULL, who TEXT NOT NULL,
    at REAL NOT NULL, state TEXT NOT NULL DEFAULT 'done', reversed_by TEXT NOT NULL DEFAULT '', reversed_at REAL,
    first INTEGER, last INTEGER, part_of TEXT NOT NULL DEFAULT '', other TEXT);
CREATE INDEX operations_by_state ON operations(state, id);
CREATE TABLE changes(operation INTEGER NOT NULL, row_id INTEGER NOT NULL, other NOT NULL,
    PRIMARY KEY(operation, row_id)) WITHOUT ROWID;
CREATE TABLE blocks(block INTEGER PRIMARY KEY, n_all INTEGER NOT NULL, n_review INTEGER NOT NULL,
    n_rejected INTEGER NOT NULL, n_train INTEGER NOT NULL, n_heldout INTEGER NOT NULL);
CREATE INDEX view_all ON rows(id) WHERE alive = 1;
CREATE INDEX view_review ON rows(id) WHERE alive = 1 AND status = 'candidate';
CREATE INDEX view_rejected ON rows(id) WHERE alive = 1 AND status = 'rejected';
CREATE INDEX view_train ON rows(id) WHERE alive = 1 AND status <> 'rejected' AND split = 'train';
CREATE INDEX view_heldout ON rows(id) WHERE alive = 1 AND status <> 'rejected' AND split = 'heldout';
PRAGMA user_version = 1;
"""


def pair(prompt: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", "a\0")), "rows.jsonl row 1")


def version_1(path: Path) -> None:
    """Three rows and one that was dropped; 7 operations done, 2 undone, 1 dropped."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA_1)
    db.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?, ?, 'rows.jsonl row 1', ?)",
        [
            (1, 5, 1, "rejected", "heldout", pair("one, third").canonical()),
            (2, 3, 0, "accepted", "train", pair("two").canonical()),
            (3, 5, 1, "accepted", "", pair("three").canonical()),
            (4, 2, 0, "candidate", "", pair("dropped").canonical()),
        ],
    )
    db.executemany(
        "INSERT INTO operations(id, kind, what, who, at, state, first, last, other)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (1, "add", "3 rows added", "ada", 1.0, "done", 1, 3, None),
            (2, "add", "1 row added", "", 2.0, "dropped", 4, 4, None),
            (3, "settings", "system prompt changed", "", 3.0, "done", None, None, '{"system": ""}'),
            (4, "messages", "row 1 edited", "", 4.0, "done", None, None, "{}"),
            (5, "messages", "row 1 edited", "bo", 5.0, "done", None, None, "{}"),
            (6, "split", "split of 2 rows", "", 6.0, "done", None, None, '{"split": ""}'),
            (7, "alive", "1 row deleted", "", 7.0, "done", None, None, "{}"),
            (8, "status", "1 row rejected", "", 8.0, "done", None, None, "{}"),
            (9, "messages", "row 3 edited", "", 9.0, "undone", None, None, "{}"),
            (10, "messages", "row 3 edited", "", 10.0, "undone", None, None, "{}"),
            (11, "settings", "system prompt changed", "", 11.0, "undone", None, None, '{"system": "Third."}'),
        ],
    )
    db.executemany(
        "INSERT INTO changes VALUES (?, ?, ?)",
        [
            (4, 1, pair("one").canonical()),
            (5, 1, pair("one, second").canonical()),
            (6, 1, ""),
            (6, 2, ""),
            (7, 2, 1),
            (8, 1, "accepted"),
            (9, 3, pair("three, second").canonical()),
            (10, 3, pair("three, third").canonical()),
        ],
    )
    db.executemany("INSERT INTO settings VALUES (?, ?)", [("system", "Be kind."), ("split", "[0.3, 7]")])
    db.execute("INSERT INTO blocks VALUES (0, 2, 0, 1, 0, 0)")
    db.commit()
    db.close()


def test_nothing_is_lost(tmp_path):
    path = tmp_path / "data.sqlite"
    version_1(path)
    with Store(path) as store:
        assert [(r.id, r.conversation, r.status, r.split, r.version) for r in store.rows()] == [
            (1, pair("one, third"), "rejected", "heldout", 5),
            (3, pair("three"), "accepted", "", 5),
        ]
        assert store.rows()[0].conversation.origin == "rows.jsonl row 1"
        assert (store.system, store.split_settings, store.counts()) == (
            "Be kind.",
            (0.3, 7, "equal"),
            Counts(2, 0, 0, 0, 1),
        )
        assert [(op.id, op.who, op.at, op.state) for op in store.log()][-3:] == [
            (3, "", 3.0, "done"), (2, "", 2.0, "dropped"), (1, "ada", 1.0, "done"),
        ]  # fmt: skip
        assert store.page(Query(search="THREE", source="rows.jsonl", sort="chars")).total == 1
        assert versions.name(store, "migrated").current


def test_undo_and_redo_go_all_the_way(tmp_path):
    path = tmp_path / "data.sqlite"
    version_1(path)

    def picture() -> tuple:
        rows = [(r.id, r.conversation.messages[0].content, r.status, r.split) for r in store.rows()]
        return rows, store.system, store.split_settings

    third = (3, "three", "accepted", "")
    with Store(path) as store:
        versions.name(store, "migrated")
        back = [
            ([(1, "one, third", "rejected", "heldout"), third], "Be kind.", (0.3, 7, "equal")),
            ([(1, "one, third", "accepted", "heldout"), third], "Be kind.", (0.3, 7, "equal")),
            (
                [(1, "one, third", "accepted", "heldout"), (2, "two", "accepted", "train"), third],
                "Be kind.",
                (0.3, 7, "equal"),
            ),
            ([(1, "one, third", "accepted", ""), (2, "two", "accepted", ""), third], "Be kind.", None),
            ([(1, "one, second", "accepted", ""), (2, "two", "accepted", ""), third], "Be kind.", None),
            ([(1, "one", "accepted", ""), (2, "two", "accepted", ""), third], "Be kind.", None),
            ([(1, "one", "accepted", ""), (2, "two", "accepted", ""), third], "", None),
            ([], "", None),
        ]
        for n, there in enumerate(back):
            assert picture() == there, n
            store.undo()
        assert not store.can_undo
    with Store(path) as store:  # now of the present version
        for n, there in reversed(list(enumerate(back))):
            assert picture() == there, n
            store.redo()
        (first, _), _, split = back[0]
        forth = [([first, (3, "three, second", *third[2:])], "Be kind.", split)]
        forth += [([first, (3, "three, third", *third[2:])], system, split) for system in ("Be kind.", "Third.")]
        for n, there in enumerate(forth):
            assert picture() == there, n
            store.redo()
        assert not store.can_redo
        found = versions.diff(store, "migrated")
        assert (found.changed, found.system) == (1, ("Be kind.", "Third."))
        assert versions.restore(store, "migrated") == 1
        assert picture() == back[0]


def test_version_2_gets_room_for_the_audit(tmp_path):
    path = tmp_path / "data.sqlite"
    with Store(path) as store:
        store.add([pair("one"), pair("two")])
    db = sqlite3.connect(path)
    for table in ("audited", "audited_rows", "compared"):  # what version 3 added
        db.execute(f"DROP TABLE {table}")
    db.execute("ALTER TABLE blocks DROP COLUMN audited")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    with Store(path) as store:
        assert [r.audit for r in store.rows()] == [None, None]
        store.delete([1])
        assert store.page(Query(sort="score")).total == 1 and not any(store.flags().values())


def test_a_migration_that_breaks_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "data.sqlite"
    version_1(path)
    with monkeypatch.context() as broken:
        broken.setattr(migrate, "_log_from_1", lambda db: json.loads("{"))
        with pytest.raises(json.JSONDecodeError):
            Store(path)
    with Store(path) as store:
        assert len(store.rows()) == 2 and store.can_redo
