"""The truth about a project's dataset: rows in SQLite, and a log of every operation on them.

Made for a million rows, for several threads and for several processes (a generation adds rows while a page reads):
WAL, so that readers never wait; one connection for each call in progress; rows that come from a slow source are
gathered in a temporary table first, so that writers wait for each other only as long as a write takes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from ..conversation import Conversation, Message
from ..errors import FTError
from . import audited, columns, conversations, migrate, operations, search, views
from .audited import Audit
from .columns import Query
from .operations import Operation

Status = Literal["candidate", "accepted", "rejected"]
View = Literal["all", "review", "rejected", "train", "heldout"]

_WAIT_S = 60
"""How long a write waits for another one."""

_INDEX_AT_ONCE = 1000
"""Conversations that go into the search index in one transaction."""

_READ_AT_ONCE = 200
"""Conversations that are read in one transaction."""

_INDEX_BEFORE_SEARCH_S = 0.1
"""How long a search brings the index up before it looks."""


@dataclass(frozen=True)
class Row:
    """One conversation of the dataset. `version` counts its changes; an edit names the one that it saw."""

    id: int
    conversation: Conversation
    status: Status
    split: Literal["train", "heldout", ""]
    version: int
    audit: Audit | None = field(default=None, compare=False)
    """What was found of it (audit.py); None when nobody has looked yet."""


Selection = Iterable[int] | Query
"""Rows by id, or all rows that a query finds."""


@dataclass(frozen=True)
class Page:
    """Some rows of a query's answer, and how many it has."""

    rows: list[Row]
    total: int


@dataclass(frozen=True)
class Counts:
    """Numbers of rows. `rows` is all of them; `train` and `heldout` are in the split and not rejected."""

    rows: int
    train: int
    heldout: int
    to_review: int
    rejected: int


@dataclass(frozen=True)
class Stats(Counts):
    fingerprint: str
    """sha256 of what would be trained on, in hexadecimal (see fingerprint_line)."""


class EditConflict(FTError):
    """Somebody else changed the row meanwhile. `current` is how it stands now; nothing was overwritten."""

    def __init__(self, current: Row, yours: tuple[Message, ...]):
        super().__init__(
            f"row {current.id} was changed by somebody else meanwhile; it now reads: {_brief(current.conversation)}",
            f"Yours was: {_brief(Conversation(yours))}. Take the row as it is now, or make your change again.",
        )
        self.current = current
        self.yours = yours


class Store:
    """The rows of one project. Safe to share between threads; every method is one transaction.

    Raises FTError when the file is no store, or damaged.
    """

    def __init__(self, path: Path):
        self.path = path
        self._idle: deque[sqlite3.Connection] = deque()
        try:
            with self.connection() as db:
                migrate.to_current(db)
        except sqlite3.DatabaseError as error:
            raise FTError(f"{path} cannot be opened as a dataset: {error}", "Restore it from a copy.") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses until it is given back. For the modules beside this."""
        try:
            db = self._idle.pop()
        except IndexError:
            db = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")  # in WAL a killed process loses nothing
            db.create_function("has_text", 2, search.has_text, deterministic=True)
        try:
            yield db
        except BaseException:
            db.close()  # also drops what it was in the middle of
            raise
        self._idle.append(db)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the rows, however long it is read and whatever others write. For the modules beside this."""
        with self.connection() as db, transaction(db, "DEFERRED"):
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The one writer; an exception takes back what it did. For the modules beside this."""
        with self.connection() as db, transaction(db):
            yield db

    # --- reading

    @property
    def system(self) -> str:
        """The project's system prompt: that of every conversation that brings none."""
        with self.connection() as db:
            return operations.setting(db, "system")

    @property
    def stamp(self) -> str:
        """Another one after every change of the rows and of what holds for all of them, undo and redo included."""
        with self.reading() as db:
            text = "\n".join((views.stamp(db), operations.setting(db, "system"), operations.setting(db, "split")))
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def split_settings(self) -> tuple[float, int, str] | None:
        """Share, seed and grouping (DataRecipe.group) of the split, None before there is one."""
        with self.connection() as db:
            value = operations.setting(db, "split")
        return tuple([*json.loads(value), "equal"][:3]) if value else None

    def rows(self, offset: int = 0, limit: int = 100, view: View = "all", search: str = "") -> list[Row]:
        """A page, in the order in which rows came. `search` is text that a message has, in any case."""
        if search:
            self.index(seconds=_INDEX_BEFORE_SEARCH_S)
        with self.reading() as db:
            return self._page(db, Query(view, search), offset, limit)

    def count(self, view: View = "all", search: str = "") -> int:
        with self.reading() as db:
            return self._total(db, Query(view, search))

    def page(self, query: Query, offset: int = 0, limit: int = 100) -> Page:
        """A page of the rows that a query finds, in its order, and how many these are, both of one state."""
        if query.search:
            self.index(seconds=_INDEX_BEFORE_SEARCH_S)
        with self.reading() as db:
            return Page(self._page(db, query, offset, limit), self._total(db, query))

    def place(self, query: Query, id: int) -> int | None:
        """Where a row stands in a query's answer, counted from 0; None when it is not among them."""
        with self.reading() as db:
            if query.plain:
                return views.place(db, query.view, id)
            found = (columns.select(db, self.path, query) == id).nonzero()[0]
            return int(found[0]) if len(found) else None

    def _page(self, db: sqlite3.Connection, query: Query, offset: int, limit: int) -> list[Row]:
        if query.plain:
            ids = views.page(db, query.view, offset, limit)
        else:
            ids = columns.select(db, self.path, query)[offset : offset + limit].tolist()
        return _rows(db, ids)

    def _total(self, db: sqlite3.Connection, query: Query) -> int:
        return views.count(db, query.view) if query.plain else len(columns.select(db, self.path, query))

    def ids(self, db: sqlite3.Connection, selection: Selection) -> list[int]:
        """Of a selection, as `db` (from `reading`, or from `writing` before it changes anything) sees it."""
        if isinstance(selection, Query):
            return columns.select(db, self.path, selection).tolist()
        return list(selection)

    def sources(self) -> dict[str, int]:
        """The files and generations that rows came from, with how many came from each."""
        with self.reading() as db:
            return columns.sources(db, self.path)

    def flags(self) -> dict[str, int]:
        """By name of a flag (audited.FLAGS), how many rows that are not rejected have it."""
        with self.reading() as db:
            return columns.flags(db, self.path)

    def index(self, seconds: float = 1.0) -> int:
        """Brings the search index up for so long, and returns how many conversations it still lacks.

        Search is right without it, but reads those. After a large import, call it in the background until it
        returns 0; others can write in between.
        """
        until = time.monotonic() + seconds
        with self.connection() as db:
            left = search.behind(db)
            db.execute("PRAGMA busy_timeout = 0")  # whoever has something to write goes first
            while left and time.monotonic() < until:
                try:
                    with transaction(db):
                        left = search.catch_up(db, _INDEX_AT_ONCE)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                        raise
                    time.sleep(0.02)
            db.execute(f"PRAGMA busy_timeout = {_WAIT_S * 1000}")
        return left

    def rows_by_id(self, db: sqlite3.Connection, ids: Iterable[int]) -> list[Row]:
        """The living ones among `ids`, as `db` (from `reading` or `writing`) sees them."""
        return _rows(db, list(ids))

    def get(self, id: int) -> Row:
        """Raises FTError when there is no such row, or it was deleted."""
        with self.connection() as db:
            return _get(db, id)

    def counts(self) -> Counts:
        with self.reading() as db:
            return _counts(db)

    def stats(self) -> Stats:
        """The counts and the fingerprint; the latter reads every row (a second for 300,000)."""
        digest = sha256()
        with self.reading() as db:
            counts = _counts(db)
            for _, text, split in _texts(db, None):
                digest.update(fingerprint_line(text, split))
        return Stats(**vars(counts), fingerprint=digest.hexdigest())

    def texts(self, split: str | None = None) -> Iterator[tuple[int, str, str]]:
        """Id, Conversation.canonical() and split of every row that is trained on, as `conversations`."""
        with self.reading() as db:
            yield from _texts(db, split)

    def conversations(self, split: str | None = None) -> Iterator[tuple[int, Conversation, str]]:
        """Id, conversation and split of every row that is not rejected, under the project's system prompt.

        `split` takes one side of it: train or heldout.
        """
        with self.reading() as db:
            system = operations.setting(db, "system")
            for r in _trained(db, split):
                yield r["id"], conversations.read(r["messages"], r["origin"]).with_system(system), r["split"]

    def conversations_by_number(self, numbers: Sequence[int]) -> Iterator[tuple[int, Conversation]]:
        """What is kept under these numbers (`rows.conversation`), without the project's system prompt."""
        for start in range(0, len(numbers), _READ_AT_ONCE):
            with self.reading() as db:
                some = json.dumps(numbers[start : start + _READ_AT_ONCE])
                found = db.execute(
                    "SELECT conversations.id, messages, origin FROM json_each(?)"
                    " CROSS JOIN conversations ON conversations.id = value ORDER BY key",
                    (some,),
                ).fetchall()
            for id, messages, origin in found:
                yield id, conversations.read(messages, origin)

    def log(self, limit: int = 100) -> list[Operation]:
        """What was done, the last first."""
        with self.connection() as db:
            found = db.execute("SELECT id, what, who, at, state FROM operations ORDER BY id DESC LIMIT ?", (limit,))
            return [Operation(*r) for r in found]

    @property
    def can_undo(self) -> bool:
        return self._has("done")

    @property
    def can_redo(self) -> bool:
        return self._has("undone")

    def _has(self, state: str) -> bool:
        with self.connection() as db:
            return db.execute("SELECT 1 FROM operations WHERE state = ? LIMIT 1", (state,)).fetchone() is not None

    # --- changing; each is one operation

    def add(self, rows: Iterable[Conversation], status: Status = "accepted", who: str = "", part_of: str = "") -> int:
        """Adds rows at the end and returns how many; all of them or, when `rows` raises, none.

        Rows that come with the same `part_of` (a job's id) one call after the other are one operation, as long as
        nothing else happens in between.
        """
        _known(status, Status)
        with self.connection() as db, conversations.staging(db):
            with transaction(db, "DEFERRED"):
                conversations.stage(db, ((None, None, c) for c in rows))
            added = db.execute("SELECT COUNT(*) FROM staged").fetchone()[0]
            if added:
                with transaction(db):
                    kept = conversations.keep_staged(db)
                    last = db.execute("SELECT COALESCE(MAX(id), 0) FROM rows").fetchone()[0]
                    db.execute(
                        "INSERT INTO rows(id, status, conversation) SELECT ? + n, ?, ? + n FROM staged ORDER BY n",
                        (last, status, kept),
                    )
                    operations.record_add(db, last + 1, last + added, who, part_of)
        return added

    def edit(
        self, id: int, messages: Sequence[Message], version: int, who: str = "", rejected: str | None = None
    ) -> Row:
        """Replaces the row's messages, and with `rejected` its worse answer ('' takes that away).

        Raises EditConflict when the row is no longer at `version`.
        """
        messages = tuple(messages)
        conversations.stored(Conversation(messages, rejected=rejected or ""))
        with self.writing() as db, conversations.staging(db):
            row = _get(db, id)
            if row.version != version:
                raise EditConflict(row, messages)
            worse = row.conversation.rejected if rejected is None else rejected
            edited = replace(row.conversation, messages=messages, rejected=worse)
            if edited != row.conversation:
                conversations.stage(db, [(id, None, edited)])
                kept = conversations.keep_staged(db)
                operations.change(db, "conversation", [(id, kept + 1)], f"row {id} edited", who)
            return _get(db, id)

    def set_status(self, selection: Selection, status: Status, who: str = "") -> int:
        """Returns how many rows that changed; rows deleted meanwhile are not among them."""
        _known(status, Status)
        done = {"candidate": "put back to review"}.get(status, status)
        with self.writing() as db:
            wanted = ((id, status) for id in self.ids(db, selection))
            return operations.change(db, "status", wanted, f"{{n}} {done}", who)

    def delete(self, selection: Selection, who: str = "") -> int:
        """Returns how many rows that deleted."""
        with self.writing() as db:
            return operations.change(db, "alive", ((id, 0) for id in self.ids(db, selection)), "{n} deleted", who)

    def set_system(self, text: str, who: str = "") -> None:
        conversations.encodable(text)
        with self.writing() as db:
            operations.configure(db, {"system": text}, "system prompt changed", who)

    def set_split(
        self, splits: Iterable[tuple[int, str]], share: float, seed: int, who: str = "", group: str = "equal"
    ) -> int:
        """Puts rows by id into train or heldout, and keeps what the split was made with. Returns rows changed."""
        with self.writing() as db:
            made_with = {"split": json.dumps([share, seed, group])}
            return operations.change(db, "split", splits, "split of {n}", who, made_with)

    def undo(self, who: str = "") -> str | None:
        """Reverses the last operation and says what it was; None when there is none."""
        with self.writing() as db:
            return operations.undo(db, who)

    def redo(self, who: str = "") -> str | None:
        """Does again what was undone last and says what it was; None when there is none."""
        with self.writing() as db:
            return operations.redo(db, who)


def fingerprint_line(text: str, split: str) -> bytes:
    """What one row adds to a dataset's fingerprint: sha256 over these lines, in the order of ids.

    `text` is Conversation.canonical() of the conversation under its system prompt.
    """
    return f"{split}\t{text}\n".encode()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """DEFERRED sees one state of the rows however long it reads. On an error `connection` closes, which reverts."""
    db.execute(f"BEGIN {kind}")
    yield
    db.execute("COMMIT")


def _known(value: str, kind: Any) -> None:
    if value not in get_args(kind):
        raise FTError(f"{value!r} is not a status", f"It is one of {', '.join(get_args(kind))}.")


_ROW = "SELECT rows.id, status, split, version, origin, messages"
_ROWS_IN = (
    f"{_ROW} FROM json_each(?) CROSS JOIN rows ON rows.id = json_each.value"
    " CROSS JOIN conversations ON conversations.id = conversation"
)


def _rows(db: sqlite3.Connection, ids: list[int]) -> list[Row]:
    """The living ones, in the order of `ids`."""
    found = db.execute(f"{_ROWS_IN} WHERE alive = 1 ORDER BY key", (json.dumps(ids),))
    audits = audited.of(db, ids)
    return [
        Row(
            r["id"],
            conversations.read(r["messages"], r["origin"]),
            r["status"],
            r["split"],
            r["version"],
            audits.get(r["id"]),
        )
        for r in found
    ]


def _get(db: sqlite3.Connection, id: int) -> Row:
    found = _rows(db, [id])
    if not found:
        raise FTError(f"there is no row {id}", "It may have been deleted, or its import undone.")
    return found[0]


def _brief(conversation: Conversation) -> str:
    text = " / ".join(f"{m.role}: {m.content}" for m in conversation.messages)
    return f"{text[:200]}…" if len(text) > 200 else text


def _counts(db: sqlite3.Connection) -> Counts:
    return Counts(*(views.count(db, view) for view in ("all", "train", "heldout", "review", "rejected")))


def _trained(db: sqlite3.Connection, split: str | None) -> Iterator[sqlite3.Row]:
    where = views.TRAINED if split is None else views.VIEWS[split]
    return db.execute(
        "SELECT rows.id, messages, origin, split"
        " FROM rows CROSS JOIN conversations ON conversations.id = conversation"
        f" WHERE {where} ORDER BY rows.id"
    )


def _texts(db: sqlite3.Connection, split: str | None) -> Iterator[tuple[int, str, str]]:
    """As `Store.texts`. The system prompt is put in by text, because a million rows go through here."""
    system = operations.setting(db, "system")
    first = Conversation((Message("system", system),)).canonical()[1:-1]
    for r in _trained(db, split):
        text = r["messages"]
        if system and not text.startswith('[["system",'):
            text = f"[{first},{text[1:]}"
        yield r["id"], text, r["split"]
