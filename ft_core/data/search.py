"""Text search: SQLite's FTS5 over runs of three characters, so any part of any word of any language is found.

The index keeps which runs a conversation has, not where (a quarter of the size), so it gives candidates, and their
text decides. It follows conversations by their ids, which only grow and never change their text: undo and redo leave
it alone, and what it has not come to yet is read. So a write never waits for it; `Store.index` brings it up in short
steps. It needs SQLite 3.34 (2020), which every Python that FT Flow runs on brings.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable

import numpy as np

from . import operations

SCHEMA = (
    "CREATE VIRTUAL TABLE search_index USING"
    " fts5(text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1')",
    "CREATE VIRTUAL TABLE search_terms USING fts5vocab(search_index, row)",
)

_RUN = 3
_END = "\x1f"
"""Follows each message twice, so that its last characters begin a run too; also stands for NUL, where FTS5 ends."""
_MOST_RUNS = 32
"""Runs of a long text that are looked up; the candidates' text decides anyway."""


def has_text(messages: str, folded: str) -> bool:
    return any(folded in said.casefold() for _, *texts in json.loads(messages) for said in texts)


def catch_up(db: sqlite3.Connection, limit: int) -> int:
    """Indexes up to `limit` conversations and returns how many are left. In a transaction that writes."""
    upto = _upto(db)
    found = db.execute("SELECT id, messages FROM conversations WHERE id > ? ORDER BY id LIMIT ?", (upto, limit))
    texts = [(id, _searchable(messages)) for id, messages in found]
    if texts:
        db.executemany("INSERT INTO search_index(rowid, text) VALUES (?, ?)", texts)
        upto = texts[-1][0]
        db.execute("INSERT OR REPLACE INTO settings VALUES ('indexed', ?)", (str(upto),))
    return behind(db)


def behind(db: sqlite3.Connection) -> int:
    """How many conversations the index lacks, about: ids may have gaps."""
    return last(db) - _upto(db)


def last(db: sqlite3.Connection) -> int:
    """The newest conversation."""
    return db.execute("SELECT COALESCE(MAX(id), 0) FROM conversations").fetchone()[0]


def matching(db: sqlite3.Connection, folded: str, after: int = 0) -> np.ndarray:
    """Ids of the conversations past `after` that have the casefolded text in a message."""
    upto = _upto(db)
    candidates = _candidates(db, folded) if after < upto else ()
    found = [np.fromiter((r[0] for r in candidates), np.int32)]
    rest = db.execute(
        "SELECT id FROM conversations WHERE id > ? AND has_text(messages, ?)", (max(after, upto), folded)
    )
    found.append(np.fromiter((r[0] for r in rest), np.int32))
    return np.concatenate(found)


def _candidates(db: sqlite3.Connection, folded: str) -> Iterable[sqlite3.Row]:
    text = folded.replace("\0", _END)
    if len(text) < _RUN:
        terms = db.execute("SELECT term FROM search_terms WHERE term >= ? AND term < ?", (text, f"{text}\U0010ffff"))
        wanted = " OR ".join(_quoted(r[0]) for r in terms)
        if not wanted:
            return ()
    else:
        runs = dict.fromkeys(text[i : i + _RUN] for i in range(len(text) - _RUN + 1))
        wanted = " AND ".join(_quoted(run) for run in list(runs)[:_MOST_RUNS])
    if len(text) <= _RUN and _END not in text:  # the index alone knows
        return db.execute("SELECT rowid FROM search_index WHERE search_index MATCH ?", (wanted,))
    return db.execute(
        "SELECT search_index.rowid FROM search_index CROSS JOIN conversations ON id = search_index.rowid"
        " WHERE search_index MATCH ? AND has_text(messages, ?)",
        (wanted, folded),
    )


def _searchable(messages: str) -> str:
    folded = (said.casefold().replace("\0", _END) for _, *texts in json.loads(messages) for said in texts)
    return "".join(f"{content}{_END}{_END}" for content in folded)


def _quoted(run: str) -> str:
    return '"' + run.replace('"', '""') + '"'


def _upto(db: sqlite3.Connection) -> int:
    return int(operations.setting(db, "indexed") or 0)
