"""Changes to many rows at once: each is one operation, on rows by id or on all that a query finds.

Setting the status and deleting are methods of the store. What rewrites text reads and writes beside other writers, and
only then takes their place: a row that somebody else changed meanwhile is rewritten as it stands now.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import regex

from ..conversation import ROLES, Conversation, Message
from ..errors import FTError
from . import cells, columns, conversations, operations
from .columns import Query
from .store import EditConflict, Selection, Store, transaction

_AT_ONCE = 1000
"""Rows that are read at once."""
_PATIENCE_S = 60.0
"""How long a pattern may take over all rows, and ..."""
_PATIENCE_A_ROW_S = 1.0
"""... over one message. Some patterns take longer than the universe lasts."""


def duplicate(store: Store, selection: Selection, who: str = "") -> int:
    """Adds a copy of each row at the end, with its status and split. Returns how many."""
    with store.writing() as db:
        ids = json.dumps(store.ids(db, selection))
        last = db.execute("SELECT COALESCE(MAX(id), 0) FROM rows").fetchone()[0]
        added = db.execute(
            "INSERT INTO rows(id, status, split, conversation)"
            " SELECT ? + ROW_NUMBER() OVER (ORDER BY key), status, split, conversation"
            " FROM json_each(?) CROSS JOIN rows ON rows.id = json_each.value WHERE alive = 1",
            (last, ids),
        ).rowcount
        if added:
            operations.record_add(db, last + 1, last + added, who, done="duplicated")
        return added


def set_split(store: Store, selection: Selection, split: str, who: str = "") -> int:
    """Puts rows into train or heldout by hand, or with '' into neither. Returns how many that moved."""
    if split not in columns.SPLITS:
        raise FTError(f"{split!r} is no side of the split", "It is train or heldout, or nothing for neither.")
    done = {"train": "put into training", "heldout": "held out", "": "taken out of the split"}[split]
    with store.writing() as db:
        wanted = ((id, split) for id in store.ids(db, selection))
        return operations.change(db, "split", wanted, f"{{n}} {done}", who)


def set_system(store: Store, selection: Selection, text: str, who: str = "") -> int:
    """Gives rows a system message of their own; with '' they lose it, so that the project's holds.

    Returns rows changed.
    """
    conversations.encodable(text)
    first = (Message("system", text),) if text else ()

    def change(conversation: Conversation) -> Conversation | None:
        rest = conversation.messages[conversation.messages[0].role == "system" :]
        return replace(conversation, messages=(*first, *rest)) if first or rest else None

    what = "system message of {n} changed" if text else "system message of {n} removed"
    return _rewrite(store, selection, change, what, who)


@dataclass(frozen=True)
class Edit:
    """Cells of a row, as cells.py has them, and the version of the row that was seen."""

    id: int
    version: int
    cells: Mapping[str, str]


def write_cells(store: Store, edits: Iterable[Edit], new: Iterable[Mapping[str, str]] = (), who: str = "") -> int:
    """Writes cells of rows, at most one edit a row, and adds rows at the end that are made of cells, to be reviewed.

    Returns rows changed and added. Raises EditConflict for the first row that is no longer as it was seen, and FTError
    for one that was deleted; then nothing is written.
    """
    wanted = {edit.id: edit for edit in edits}
    fresh = [cells.write(_EMPTY, {"prompt": "", "response": "", **row}) for row in new]
    with store.writing() as db, conversations.staging(db):
        found = {row.id: row for row in store.rows_by_id(db, wanted)}
        for id, edit in wanted.items():
            if id not in found or found[id].version != edit.version:
                current = store.get(id)
                raise EditConflict(current, cells.write(current.conversation, edit.cells).messages)
        written = ((id, cells.write(found[id].conversation, edit.cells)) for id, edit in wanted.items())
        changed = [(id, None, after) for id, after in written if after != found[id].conversation]
        conversations.stage(db, [*changed, *((None, None, conversation) for conversation in fresh)])
        kept = conversations.keep_staged(db)
        operation = operations.next_id(db)
        value = f"SELECT row_id, {kept} + n AS value FROM staged WHERE row_id IS NOT NULL"
        operations.note_changes(db, operation, "conversation", value)
        added = _insert_staged(db, kept) if fresh else None
        what = [f"{operations.counted(len(done))} {word}" for done, word in ((changed, "edited"), (fresh, "added"))
                if done]  # fmt: skip
        operations.finish(db, operation, len(changed), ", ".join(what), who, {}, added)
    return len(changed) + len(fresh)


_EMPTY = Conversation((Message("user", ""), Message("assistant", "")), "typed in")


def _insert_staged(db: sqlite3.Connection, kept: int) -> tuple[int, int]:
    """New rows for the staged conversations that are of none. Returns the range of their ids."""
    last = db.execute("SELECT COALESCE(MAX(id), 0) FROM rows").fetchone()[0]
    added = db.execute(
        "INSERT INTO rows(id, status, conversation) SELECT ? + ROW_NUMBER() OVER (ORDER BY n), 'candidate', ? + n"
        " FROM staged WHERE row_id IS NULL",
        (last, kept),
    ).rowcount
    return last + 1, last + added


@dataclass(frozen=True)
class Find:
    """What to find, and what to put in its place."""

    find: str
    put: str = ""
    """With `regex`, \\1 and \\g<name> are what groups found."""
    regex: bool = False
    """`find` is a pattern in the syntax of Python's re and the regex package."""
    case: bool = True
    """Capital and small letters differ."""
    role: str = ""
    """Only in messages of this role; '' means in all."""


@dataclass(frozen=True)
class Replacement:
    """One row, as it is and as it would be."""

    id: int
    before: Conversation
    after: Conversation


@dataclass(frozen=True)
class Preview:
    rows: int
    """Rows that would change."""
    places: int
    """Places in them."""
    replacements: tuple[Replacement, ...]
    """The first of them."""
    whole: bool = True
    """All rows were looked at; else there are at least so many."""


def preview(store: Store, selection: Selection, find: Find, limit: int = 20, seconds: float | None = None) -> Preview:
    """What `replace_text` would do, as far as `seconds` suffice. Changes nothing. Raises FTError as it does."""
    substitute = _Substitution(find)
    shown: list[Replacement] = []
    rows = 0
    until = math.inf if seconds is None else time.monotonic() + seconds
    with store.reading() as db:
        for id, _, conversation in _read(db, _candidates(db, store, selection, find)):
            after = substitute(conversation)
            if after is not None:
                rows += 1
                if len(shown) < limit:
                    shown.append(Replacement(id, conversation, after))
            if time.monotonic() > until:
                return Preview(rows, substitute.places, tuple(shown), whole=False)
    return Preview(rows, substitute.places, tuple(shown))


def replace_text(store: Store, selection: Selection, find: Find, who: str = "") -> int:
    """Replaces in every message of the rows. Returns rows changed.

    Raises FTError for a pattern that cannot be read, or takes too long (in which case nothing is changed).
    """
    what = f"replaced {_short(find.find)} by {_short(find.put)} in {{n}}"
    return _rewrite(store, selection, _Substitution(find), what, who, find)


class _Substitution:
    """Conversation -> the conversation after it, or None when nothing in it is found."""

    def __init__(self, find: Find):
        if not find.find:
            raise FTError("there is nothing to find", "Type the text to look for.")
        if find.role not in ("", *ROLES):
            raise FTError(f"{find.role!r} is not a role", f"Roles are {', '.join(ROLES)}.")
        conversations.encodable(find.find + find.put)
        flags = 0 if find.case else regex.IGNORECASE | regex.FULLCASE
        try:
            self._pattern = regex.compile(find.find if find.regex else regex.escape(find.find), flags)
            self._put = find.put if find.regex else lambda match: find.put
            regex.compile(f"{self._pattern.pattern}|", flags).sub(self._put, "")  # finds '', so it reads what is put
        except (regex.error, IndexError) as error:
            raise FTError(
                f"the pattern cannot be read: {error}", "To find the text as it is, turn patterns off."
            ) from None
        self._role = find.role
        self._left = _PATIENCE_S
        self.places = 0

    def __call__(self, conversation: Conversation) -> Conversation | None:
        messages, found = [], 0
        for message in conversation.messages:
            if self._role in ("", message.role):
                text, n = self._in(message.content)
                found += n
                message = replace(message, content=text) if n else message
            messages.append(message)
        if not found:
            return None
        after = replace(conversation, messages=tuple(messages))
        if after == conversation:
            return None
        self.places += found
        return after

    def _in(self, text: str) -> tuple[str, int]:
        start = time.monotonic()
        try:
            return self._pattern.subn(self._put, text, timeout=min(self._left, _PATIENCE_A_ROW_S))
        except TimeoutError:
            raise FTError(
                f"the pattern takes too long, for example on: {_short(text)}",
                "Make it plainer: a repetition inside a repetition, as in (a+)+, is the usual reason.",
            ) from None
        finally:
            self._left = max(self._left - (time.monotonic() - start), 0.01)


def _rewrite(
    store: Store,
    selection: Selection,
    change: Callable[[Conversation], Conversation | None],
    what: str,
    who: str,
    find: Find | None = None,
) -> int:
    with store.connection() as db, conversations.staging(db):
        with transaction(db, "DEFERRED"):
            _stage(db, _candidates(db, store, selection, find), change)
        with transaction(db):
            meanwhile = db.execute(
                "DELETE FROM staged WHERE EXISTS (SELECT 1 FROM rows WHERE id = row_id AND conversation <> seen)"
                " RETURNING row_id"
            ).fetchall()
            _stage(db, (r[0] for r in meanwhile), change)
            kept = conversations.keep_staged(db)
            wanted = db.execute("SELECT row_id, ? + n FROM staged", (kept,))
            return operations.change(db, "conversation", wanted, what, who)


def _stage(db: sqlite3.Connection, ids: Iterable[int], change: Callable[[Conversation], Conversation | None]) -> None:
    changed = ((id, seen, change(conversation), conversation) for id, seen, conversation in _read(db, ids))
    conversations.stage(db, ((id, seen, new) for id, seen, new, old in changed if new is not None and new != old))


def _candidates(db: sqlite3.Connection, store: Store, selection: Selection, find: Find | None) -> list[int]:
    """Ids of a selection, without those that the search index knows not to have the text."""
    ids = store.ids(db, selection)
    if find is None or find.regex:
        return ids
    having = set(store.ids(db, Query(search=find.find)))
    return [id for id in ids if id in having]


def _read(db: sqlite3.Connection, ids: Iterable[int]) -> Iterator[tuple[int, int, Conversation]]:
    """Id, number of the conversation, and conversation of the living rows among `ids`."""
    ids = iter(ids)
    while some := list(islice(ids, _AT_ONCE)):
        found = db.execute(
            "SELECT rows.id, conversation, origin, messages FROM json_each(?) CROSS JOIN rows ON rows.id = value"
            " CROSS JOIN conversations ON conversations.id = conversation WHERE alive = 1 ORDER BY key",
            (json.dumps(some),),
        )
        for id, number, origin, messages in found:
            yield id, number, conversations.read(messages, origin)


def _short(text: str) -> str:
    return f"“{text[:40]}…”" if len(text) > 40 else f"“{text}”"
