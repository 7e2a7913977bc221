"""Which rows a view of the dataset shows, how many, and where its pages begin, at a cost that hardly grows with them.

SQLite counts its way to an OFFSET, which is too slow to scroll through a million rows. So the store keeps how many
rows of each view lie in each block of 4096 ids; the write that changes them counts the blocks that it touched again,
and stamps them, so that whoever keeps rows in memory (columns.py) knows which to read again. The audit has a stamp of
its own there: what it finds changes no row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ..errors import FTError

LIVING = "alive = 1"
TRAINED = f"{LIVING} AND status <> 'rejected'"
VIEWS: dict[str, str] = {
    "all": LIVING,
    "review": f"{LIVING} AND status = 'candidate'",
    "rejected": f"{LIVING} AND status = 'rejected'",
    "train": f"{TRAINED} AND split = 'train'",
    "heldout": f"{TRAINED} AND split = 'heldout'",
}

BLOCK_BITS = 12
_PAST_THE_END = 2**62

# One partial index a view: a page reads ids alone, however few of the rows are in the view.
SCHEMA = (
    f"CREATE TABLE blocks(block INTEGER PRIMARY KEY, {', '.join(f'n_{name} INTEGER NOT NULL' for name in VIEWS)},"
    " stamp INTEGER NOT NULL, audited INTEGER NOT NULL)",
    *(f"CREATE INDEX view_{name} ON rows(id) WHERE {which}" for name, which in VIEWS.items()),
)


def recount(db: sqlite3.Connection, blocks: Iterable[int]) -> None:
    sums = ", ".join(f"COALESCE(SUM({which}), 0)" for which in VIEWS.values())
    db.executemany(
        f"INSERT OR REPLACE INTO blocks SELECT ?1, {sums}, RANDOM(), 0 FROM rows"
        f" WHERE id >= ?1 << {BLOCK_BITS} AND id < (?1 + 1) << {BLOCK_BITS}",
        ((block,) for block in blocks),
    )


def recount_range(db: sqlite3.Connection, first: int, last: int) -> None:
    """After rows from id `first` to `last` changed."""
    recount(db, range(first >> BLOCK_BITS, (last >> BLOCK_BITS) + 1))


def recount_changed(db: sqlite3.Connection, operation: int, field: str) -> None:
    """After the rows in `changes` of an operation changed."""
    found = db.execute(
        f"SELECT DISTINCT row_id >> {BLOCK_BITS} FROM changes WHERE operation = ? AND field = ?", (operation, field)
    )
    recount(db, [r[0] for r in found])


def stamp(db: sqlite3.Connection) -> str:
    """Another one after every change of rows."""
    return db.execute("SELECT GROUP_CONCAT(stamp) FROM (SELECT stamp FROM blocks ORDER BY block)").fetchone()[0] or ""


def count(db: sqlite3.Connection, view: str) -> int:
    known(view)
    return db.execute(f"SELECT COALESCE(SUM(n_{view}), 0) FROM blocks").fetchone()[0]


def page(db: sqlite3.Connection, view: str, offset: int, limit: int) -> list[int]:
    """The ids of a page, in order."""
    known(view)
    start, rest = _start(db, view, offset)
    found = db.execute(
        f"SELECT id FROM rows INDEXED BY view_{view} WHERE {VIEWS[view]} AND id >= ? ORDER BY id LIMIT ? OFFSET ?",
        (start, limit, rest),
    )
    return [r[0] for r in found]


def place(db: sqlite3.Connection, view: str, id: int) -> int | None:
    """How many rows of the view stand before row `id`; None when it is not in the view."""
    known(view)
    rows = f"FROM rows INDEXED BY view_{view} WHERE {VIEWS[view]}"
    if db.execute(f"SELECT 1 {rows} AND id = ?", (id,)).fetchone() is None:
        return None
    block = id >> BLOCK_BITS
    blocks = f"SELECT COALESCE(SUM(n_{view}), 0) FROM blocks WHERE block < ?"
    before = f"SELECT COUNT(*) {rows} AND id >= ? AND id < ?"
    return db.execute(blocks, (block,)).fetchone()[0] + db.execute(before, (block << BLOCK_BITS, id)).fetchone()[0]


def _start(db: sqlite3.Connection, view: str, offset: int) -> tuple[int, int]:
    """The first id of the block in which row `offset` of the view lies, and how far in it is."""
    for block, n in db.execute(f"SELECT block, n_{view} FROM blocks ORDER BY block"):
        if offset < n:
            return block << BLOCK_BITS, offset
        offset -= n
    return _PAST_THE_END, 0


def known(view: str) -> None:
    if view not in VIEWS:
        raise FTError(f"there is no view {view!r}", f"Views are {', '.join(VIEWS)}.")
