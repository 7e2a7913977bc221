"""The conversations of a store: values that never change once they are kept.

A row points at one. An edit keeps a new one and points the row at it, so undo, versions and duplicates move numbers
and copy no text, and the search index only ever grows.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator

from ..conversation import Conversation
from ..errors import FTError

SCHEMA = (
    "CREATE TABLE sources(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE conversations(
    id INTEGER PRIMARY KEY,
    chars INTEGER NOT NULL,              -- of all messages together
    turns INTEGER NOT NULL,              -- messages
    source INTEGER NOT NULL,             -- the part of origin that many rows share
    origin TEXT NOT NULL,
    messages TEXT NOT NULL               -- Conversation.canonical(), at the end so that long text lies out of the way
)""",
    # What rows are sorted and filtered by, apart from the text.
    "CREATE INDEX conversation_facts ON conversations(id, chars, turns, source)",
)

_PLACE = re.compile(r",? row \S+$|(?<=^generated:)([^:]+):.*$", re.DOTALL)


def source(origin: str) -> str:
    """The file or the generation that a row came from: its origin without the place in it."""
    return _PLACE.sub(r"\1", origin)


def encodable(text: str) -> str:
    """Raises FTError for half of a UTF-16 pair, which no file and no tokenizer can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FTError(
            "the text holds half a character (a lone surrogate)", "Type or paste that place again."
        ) from None
    return text


def stored(conversation: Conversation) -> str:
    """The text that is kept. Raises FTError for what cannot be."""
    if not conversation.messages:
        raise FTError("a conversation without messages cannot be kept", "Delete the row instead.")
    return encodable(conversation.canonical())


def read(messages: str, origin: str) -> Conversation:
    return Conversation.from_canonical(messages, origin)


@contextlib.contextmanager
def staging(db: sqlite3.Connection) -> Iterator[None]:
    """Room for conversations on their way in, so that a slow source holds no other writer up."""
    db.execute(
        "CREATE TEMP TABLE staged(n INTEGER PRIMARY KEY, row_id INTEGER, seen INTEGER,"
        " chars INTEGER, turns INTEGER, source TEXT, origin TEXT, messages TEXT)"
    )
    yield
    db.execute("DROP TABLE staged")


def stage(db: sqlite3.Connection, wanted: Iterable[tuple[int | None, int | None, Conversation]]) -> None:
    """Each with the row that it is for and the conversation that this row had, None for a new row."""
    db.executemany(
        "INSERT INTO staged(row_id, seen, chars, turns, source, origin, messages) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (
                row,
                seen,
                sum(len(m.content) for m in c.messages),
                len(c.messages),
                source(c.origin),
                c.origin,
                stored(c),
            )
            for row, seen, c in wanted
        ),
    )


def keep_staged(db: sqlite3.Connection) -> int:
    """Moves what is staged in. Staged number n becomes conversation (returned number + n)."""
    last = db.execute("SELECT COALESCE(MAX(id), 0) FROM conversations").fetchone()[0]
    db.execute("INSERT OR IGNORE INTO sources(name) SELECT DISTINCT source FROM staged")
    db.execute(
        "INSERT INTO conversations SELECT ? + n, chars, turns, sources.id, origin, messages"
        " FROM staged CROSS JOIN sources ON name = source ORDER BY n",
        (last,),
    )
    return last
