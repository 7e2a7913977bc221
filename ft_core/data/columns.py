"""Sorting and filtering: what decides them, of every row, in memory as one array (31 MB for a million rows).

Kept for a process, because a page opens its store for each question. An answer begins with the stamps of the blocks
(views.py): only those that some process has written to since are read again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..errors import FTError
from . import audited, operations, search, views
from .flags import score

Sort = Literal["position", "chars", "turns", "status", "split", "source", "tokens", "score", "flags"]

STATUSES = ("candidate", "accepted", "rejected")
SPLITS = ("", "train", "heldout")
_REJECTED = STATUSES.index("rejected")

_ROW = np.dtype(
    [
        ("id", "i4"),
        ("conversation", "i4"),
        ("chars", "i4"),
        ("turns", "i4"),
        ("source", "i4"),
        ("tokens", "i4"),  # -1 while not counted
        ("flags", "i4"),  # as in audited.FLAGS
        ("score", "i1"),  # -1 while nobody has looked
        ("status", "i1"),
        ("split", "i1"),
    ]
)
_READ = (
    "SELECT rows.id, conversation, chars, turns, source,"
    " COALESCE(tokens, -1), COALESCE(flags, 0), CASE WHEN flags IS NULL THEN -1 ELSE 0 END,"
    " CASE status WHEN 'candidate' THEN 0 WHEN 'accepted' THEN 1 ELSE 2 END,"
    " CASE split WHEN '' THEN 0 WHEN 'train' THEN 1 ELSE 2 END"
    " FROM rows CROSS JOIN conversations INDEXED BY conversation_facts ON conversations.id = conversation"
    " LEFT JOIN audited ON audited.id = conversation"
    " WHERE alive = 1 AND rows.id >= ? AND rows.id < ? ORDER BY rows.id"
)
_READ_AMONG = (
    "SELECT row_id, SUM(1 << flag) FROM audited_rows AS a CROSS JOIN rows ON id = row_id"
    " WHERE alive = 1 AND row_id >= ? AND row_id < ? AND a.conversation = rows.conversation GROUP BY row_id"
)
_VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "all": lambda rows: np.ones(len(rows), bool),
    "review": lambda rows: rows["status"] == 0,
    "rejected": lambda rows: rows["status"] == 2,
    "train": lambda rows: (rows["status"] != 2) & (rows["split"] == 1),
    "heldout": lambda rows: (rows["status"] != 2) & (rows["split"] == 2),
}
_KEPT = 8
"""Answers and searches that are kept."""
_FEW = 20_000
"""New conversations that are read rather than looked up anew."""


@dataclass(frozen=True)
class Query:
    """Which rows, in which order. An empty string, and None, mean any."""

    view: str = "all"
    search: str = ""
    """Text that a message has, in any case."""
    status: str = ""
    split: str | None = None
    """train, heldout, or '' for the rows without a place."""
    source: str = ""
    """A name of `Store.sources`."""
    sort: Sort = "position"
    descending: bool = False
    flag: str = ""
    """A name of audited.FLAGS, or 'any'. Rejected rows are in none: nothing is left to do about them."""

    @property
    def plain(self) -> bool:
        """It is a view as it lies, which needs no array."""
        return self == Query(self.view)

    def check(self) -> None:
        """Raises FTError for a value that does not exist."""
        views.known(self.view)
        for value, known, what in (
            (self.status, ("", *STATUSES), "a status"),
            (self.split, (None, *SPLITS), "a side of the split"),
            (self.flag, ("", "any", *audited.FLAGS), "a flag"),
            (self.sort, get_args(Sort), "an order"),
        ):
            if value not in known:
                raise FTError(f"{value!r} is not {what}", f"It is one of {', '.join(filter(None, known))}.")


def select(db: sqlite3.Connection, path: Path, query: Query) -> np.ndarray:
    """Ids of the rows that `query` asks for, in its order. In a transaction, so that all of it is one state."""
    query.check()
    return _columns(path, operations.setting(db, "store")).select(db, query)


def sources(db: sqlite3.Connection, path: Path) -> dict[str, int]:
    """Names of the sources of living rows, with how many come from each."""
    ids, counts = np.unique(rows(db, path)["source"], return_counts=True)
    names = dict(map(tuple, db.execute("SELECT id, name FROM sources")))
    return dict(sorted((names[id], n) for id, n in zip(ids.tolist(), counts.tolist())))


def rows(db: sqlite3.Connection, path: Path) -> np.ndarray:
    """The array of all living rows by id, with the fields of _ROW. Not to be written to."""
    return _columns(path, operations.setting(db, "store")).rows(db)


def kept(db: sqlite3.Connection, path: Path) -> np.ndarray:
    """As `rows`, of those that are not rejected."""
    found = rows(db, path)
    return found[found["status"] != _REJECTED]


def flags(db: sqlite3.Connection, path: Path) -> dict[str, int]:
    """By name of a flag, how many rows that are not rejected have it."""
    found = kept(db, path)["flags"]
    found = found[found != 0]
    return {name: int(np.count_nonzero(found >> i & 1)) for i, name in enumerate(audited.FLAGS)}


@lru_cache(maxsize=4)
def _columns(path: Path, store: str) -> _Columns:
    """Of one store; `store` tells a file from another one that was at the same path before."""
    return _Columns()


class _Columns:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamps: dict[int, tuple[int, int]] = {}
        self._parts: dict[int, np.ndarray] = {}
        self._rows = np.empty(0, _ROW)
        self._answers: OrderedDict[Query, np.ndarray] = OrderedDict()
        self._found: OrderedDict[str, tuple[int, np.ndarray]] = OrderedDict()

    def rows(self, db: sqlite3.Connection) -> np.ndarray:
        with self._lock:
            self._refresh(db)
            return self._rows

    def select(self, db: sqlite3.Connection, query: Query) -> np.ndarray:
        with self._lock:
            self._refresh(db)
            if query not in self._answers:
                _put(self._answers, query, self._ids(db, query))
            return self._answers[query]

    def _refresh(self, db: sqlite3.Connection) -> None:
        blocks = db.execute("SELECT block, stamp, audited FROM blocks ORDER BY block")
        stamps = {r["block"]: (r["stamp"], r["audited"]) for r in blocks}
        if stamps == self._stamps:
            return
        plain = db.cursor()
        plain.row_factory = None
        for block, stamp in stamps.items():
            if self._stamps.get(block) != stamp:
                limits = (block << views.BLOCK_BITS, (block + 1) << views.BLOCK_BITS)
                part = np.fromiter(plain.execute(_READ, limits), _ROW)
                _add_flags(part, plain.execute(_READ_AMONG, limits).fetchall())
                self._parts[block] = part
        parts = [self._parts[block] for block in stamps]
        self._rows = np.concatenate(parts)
        ends = np.cumsum([len(part) for part in parts])
        self._parts = dict(zip(stamps, np.split(self._rows, ends[:-1])))  # parts of the array, not copies
        self._stamps = stamps
        self._answers.clear()

    def _ids(self, db: sqlite3.Connection, query: Query) -> np.ndarray:
        rows = self._rows
        wanted = _VIEWS[query.view](rows)
        if query.status:
            wanted &= rows["status"] == STATUSES.index(query.status)
        if query.split is not None:
            wanted &= rows["split"] == SPLITS.index(query.split)
        if query.source:
            found = db.execute("SELECT id FROM sources WHERE name = ?", (query.source,)).fetchone()
            wanted &= rows["source"] == (found[0] if found else 0)
        if query.flag:
            wanted &= (rows["flags"] & _mask(query.flag) != 0) & (rows["status"] != _REJECTED)
        if query.search:
            wanted &= self._having(db, query.search.casefold())[rows["conversation"]]
        rows = rows[wanted]
        if query.sort == "position":
            return rows["id"][:: -1 if query.descending else 1].copy()
        key = _key(db, rows, query.sort)
        return rows["id"][np.argsort(-key if query.descending else key, kind="stable")]

    def _having(self, db: sqlite3.Connection, folded: str) -> np.ndarray:
        """For each conversation by its id, whether it has the text."""
        last = search.last(db)
        seen, found = self._found.get(folded, (0, np.zeros(1, bool)))
        if last > seen:
            if last - seen > _FEW:
                seen, found = 0, np.zeros(1, bool)
            grown = np.zeros(last + 1, bool)
            grown[: len(found)] = found
            grown[search.matching(db, folded, seen)] = True
            seen, found = last, grown
        _put(self._found, folded, (seen, found))
        return found


def _put(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """The newest at the end; the oldest goes."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)


def _mask(flag: str) -> int:
    return -1 if flag == "any" else audited.mask([flag])


def _add_flags(rows: np.ndarray, among: list[tuple[int, int]]) -> None:
    """Puts in what rows have among the others, and the score of all that they have."""
    if among:
        ids, found = np.array(among, np.int64).T
        rows["flags"][np.searchsorted(rows["id"], ids)] |= found.astype(np.int32)
    masks, which = np.unique(rows["flags"], return_inverse=True)
    scores = np.array([score(audited.names(mask)) for mask in masks.tolist()], np.int8)
    rows["score"] = np.where(rows["score"] < 0, -1, scores[which])


def _key(db: sqlite3.Connection, rows: np.ndarray, sort: str) -> np.ndarray:
    """What rows are ordered by."""
    if sort == "source":
        return _ranks(db)[rows["source"]]
    if sort == "flags":
        return np.bitwise_count(rows["flags"]).astype(np.int32)
    return rows[sort].astype(np.int32)


def _ranks(db: sqlite3.Connection) -> np.ndarray:
    """For each source by its id, its place in the order of names."""
    ids = [r[0] for r in db.execute("SELECT id FROM sources ORDER BY name")]
    ranks = np.zeros(max(ids, default=0) + 1, np.int32)
    ranks[ids] = np.arange(len(ids))
    return ranks
