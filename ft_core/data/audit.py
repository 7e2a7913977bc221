"""Brings the audit of a store up: what is wrong with each row, how many tokens it has, what it is among the others.

Only what nobody has looked at yet is looked at, beside whoever writes meanwhile, and kept in short steps: whoever
stops it loses nothing. What a text shows holds for good, its tokens for a base model and a system prompt. Texts are
compared with each other when there are new ones; what follows for the rows is found anew when anything about them
changed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from ..errors import FTError
from ..render import Counts, Renderer
from . import audited, columns, comparing, looking, operations, views
from .columns import Query
from .diversity import Diversity
from .looking import Found, Looker, Processes, Wanted
from .store import Store

ALIKE = ("duplicate", "near_duplicate", "similar")
"""Flags of rows that form groups."""

_RULES = 1
"""Counted up when flags.py finds something else in the same text, so that all texts are looked at again."""
_BATCH = 300_000
"""Characters that are looked at at once: half a second's work."""
_FEW_CHARACTERS = 2_000_000
_FEW_ROWS = 3_000
"""Up to so many this process does it by itself: others take a second or two to start."""


@dataclass(frozen=True)
class Step:
    """`done` of `total`, in rows; `what` says with what."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class Lacking:
    """Numbers of rows, rejected ones too, that nobody has looked at, and whose tokens nobody has counted."""

    said: int
    counted: int


@dataclass(frozen=True)
class Groups:
    """Rows that are alike, each group in order; `total` is how many groups there are."""

    groups: tuple[tuple[int, ...], ...]
    total: int


def bring_up(
    store: Store,
    renderer: Renderer | None = None,
    max_length: int = 512,
    tick: Callable[[int, int, str], None] = lambda done, total, what: None,
    workers: int | None = None,
) -> None:
    """Looks at all rows, with a renderer also at their tokens. What `tick` raises ends it; what was found is kept.

    `workers` is how many processes do it, 0 for this one alone; by default one a core, for more than a little text.
    """
    for step in steps(store, renderer, max_length, workers):
        tick(step.done, step.total, step.what)


def steps(
    store: Store,
    renderer: Renderer | None = None,
    max_length: int = 512,
    workers: int | None = None,
    compare: bool = True,
    shown: bool = True,
    first: int = -1,
) -> Iterator[Step]:
    """As bring_up, for whoever wants to do something in between, or to stop.

    Without `compare` new texts are not compared with the others. Unless `shown`, rows stay
    flagged by the limit before. `first` is how many rows are looked at at most.
    """
    limit = _settle_basis(store, renderer, max_length, shown)
    todo = _todo(store, renderer is not None, first)
    if workers is None:
        large = todo.characters > _FEW_CHARACTERS or store.count() > _FEW_ROWS
        workers = (os.cpu_count() or 1) if large else 0
    with _hands(store, renderer, workers) as hands:
        yield from _look(store, hands, todo, limit)
        if compare:
            yield from _compare(store, hands)
    settle(store)


def lacking(store: Store, renderer: Renderer | None) -> Lacking:
    """What `bring_up` would look at."""
    with store.reading() as db:
        rows = columns.rows(db, store.path)
        said = int((rows["score"] < 0).sum())
        if renderer is None:
            return Lacking(said, 0)
        other = _settings(db).get("basis") != _basis(db, renderer)
        return Lacking(said, len(rows) if other else int((rows["tokens"] < 0).sum()))


def counts(store: Store, first: int) -> list[Counts]:
    """Of the first rows that are not rejected, those that are counted and that the template takes."""
    with store.reading() as db:
        ids = columns.kept(db, store.path)["id"][:first].tolist()
        return [found.counts for _, found in audited.counts(db, ids) if not found.refusal]


def stamp(store: Store) -> str:
    """Another one whenever the audit found something new."""
    with store.reading() as db:
        found = db.execute("SELECT GROUP_CONCAT(audited) FROM (SELECT audited FROM blocks ORDER BY block)").fetchone()
        return sha256(f"{found[0]} {operations.setting(db, 'audit')}".encode()).hexdigest()[:16]


# --- single conversations


@dataclass(frozen=True)
class _Todo:
    """Conversations, the characters of each, and the rows that have them."""

    wanted: list[tuple[int, int, bool, bool]]
    """Number, characters, whether its text is wanted, whether its tokens are."""
    rows: dict[int, list[int]]

    @property
    def characters(self) -> int:
        return sum(chars for _, chars, *_ in self.wanted)

    def batches(self) -> Iterator[Wanted]:
        some: list[tuple[int, int, bool, bool]] = []
        size = 0
        for one in self.wanted:
            some.append(one)
            size += one[1] + 200
            if size >= _BATCH:
                yield _wanted(some)
                some, size = [], 0
        if some:
            yield _wanted(some)


def _wanted(some: Sequence[tuple[int, int, bool, bool]]) -> Wanted:
    return Wanted(
        tuple(number for number, *_ in some),
        frozenset(number for number, _, said, _ in some if said),
        frozenset(number for number, _, _, counted in some if counted),
    )


def _settle_basis(store: Store, renderer: Renderer | None, max_length: int, shown: bool) -> int:
    """Forgets what does not hold any more, before anything new is found. Returns the limit that flags are for."""
    with store.reading() as db:
        before, now = _bases(db, renderer, max_length, shown)
    if before != now:
        with store.writing() as db:
            before, now = _bases(db, renderer, max_length, shown)
            if before.get("rules") != now["rules"]:
                db.execute("DELETE FROM audited")
                audited.restamp_all(db)
            elif before.get("basis") != now.get("basis"):
                audited.forget_counts(db)
            elif before.get("limit") != now.get("limit"):
                audited.set_limit(db, before["limit"], now["limit"])
            _put_settings(db, now)
    return now.get("limit", max_length)


def _bases(
    db: sqlite3.Connection, renderer: Renderer | None, max_length: int, shown: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the audit, as they are and as they are to be."""
    before = _settings(db)
    now = {**before, "rules": _RULES}
    if renderer is not None:
        limit = max_length if shown else before.get("limit", max_length)
        now |= {"basis": _basis(db, renderer), "limit": limit}
    return before, now


def _basis(db: sqlite3.Connection, renderer: Renderer) -> str:
    """What tokens follow from beside the conversation."""
    return sha256(f"{renderer.fingerprint} {operations.setting(db, 'system')}".encode()).hexdigest()[:16]


def _settings(db: sqlite3.Connection) -> dict[str, Any]:
    return json.loads(operations.setting(db, "audit") or "{}")


def _put_settings(db: sqlite3.Connection, value: dict[str, Any]) -> None:
    db.execute("INSERT OR REPLACE INTO settings VALUES ('audit', ?)", (json.dumps(value),))


def _todo(store: Store, tokens: bool, first: int) -> _Todo:
    with store.reading() as db:
        found = db.execute(
            "SELECT rows.id, conversation, chars, audited.id IS NULL, tokens IS NULL AND ?"
            " FROM rows CROSS JOIN conversations INDEXED BY conversation_facts ON conversations.id = conversation"
            " LEFT JOIN audited ON audited.id = conversation"
            " WHERE alive = 1 AND (audited.id IS NULL OR tokens IS NULL AND ?) ORDER BY rows.id LIMIT ?",
            (tokens, tokens, first),
        )
        wanted: dict[int, tuple[int, int, bool, bool]] = {}
        rows: dict[int, list[int]] = {}
        for id, number, chars, said, counted in found:
            wanted.setdefault(number, (number, chars, bool(said), bool(counted)))
            rows.setdefault(number, []).append(id)
    return _Todo(list(wanted.values()), rows)


@contextmanager
def _hands(store: Store, renderer: Renderer | None, workers: int) -> Iterator[Processes | Looker]:
    if not workers:
        yield Looker(store, renderer)
        return
    with looking.processes(store.path, renderer, workers) as found:
        yield found


def _look(store: Store, hands: Processes | Looker, todo: _Todo, limit: int) -> Iterator[Step]:
    total, done = len(todo.wanted), 0
    if total:
        yield Step(0, total, "looks at rows")
    found = map(hands.look, todo.batches()) if isinstance(hands, Looker) else hands.look(todo.batches())
    for some in found:
        _keep(store, some, todo, limit)
        done += len(some.conversations)
        yield Step(done, total, "looks at rows")


def _keep(store: Store, found: Found, todo: _Todo, limit: int) -> None:
    with store.writing() as db:
        audited.keep_said(db, found.said)
        audited.keep_counted(db, found.counted, limit)
        audited.restamp(db, (row for number in found.conversations for row in todo.rows[number]))
        _unsettle(db)


# --- rows among each other


def compared(store: Store) -> bool:
    """Whether all texts that are not rejected and were looked at have been compared."""
    with store.reading() as db:
        found = db.execute(
            "SELECT 1 FROM rows CROSS JOIN audited ON audited.id = conversation"
            " LEFT JOIN compared ON compared.alike = audited.alike"
            f" WHERE {views.TRAINED} AND compared.alike IS NULL LIMIT 1"
        )
        return found.fetchone() is None


def _compare(store: Store, hands: Processes | Looker) -> Iterator[Step]:
    if compared(store):
        return
    keys: dict[int, int] = {}
    with store.reading() as db:
        for row in comparing.rows(db):
            keys.setdefault(row.alike, row.conversation)
    numbers = list(keys.values())
    total = len(numbers) * len(comparing.PARTS)
    yield Step(0, total, "compares them with each other")
    if isinstance(hands, Looker):
        found = {part: do(comparing.texts(store, numbers, part)) for part, do in comparing.PARTS.items()}
    else:
        found = {}
        for done, parts in hands.compare(numbers):
            yield Step(done, total, "compares them with each other")
            found |= parts
    with store.writing() as db:
        comparing.keep(db, {number: key for key, number in keys.items()}, found["near"], found["similar"])
        _put_settings(db, {**_settings(db), "diversity": asdict(found["diversity"])})
        _unsettle(db)


def settle(store: Store) -> None:
    """What follows for each row from what is known of all as they are now; cheap, and nothing when nothing changed."""
    with store.reading() as db:
        now = views.stamp(db)
        if _settings(db).get("stamp") == now:
            return
        found = list(comparing.flagged(comparing.rows(db)))
    with store.writing() as db:
        comparing.keep_flagged(db, found)
        _put_settings(db, {**_settings(db), "stamp": now})


def _unsettle(db: sqlite3.Connection) -> None:
    _put_settings(db, {**_settings(db), "stamp": ""})


def settled(store: Store) -> bool:
    """Whether nothing about the rows has changed since `settle`."""
    with store.reading() as db:
        return _settings(db).get("stamp") == views.stamp(db)


def last_diversity(store: Store) -> Diversity | None:
    """Of the texts when they were last compared; None when they never were."""
    with store.reading() as db:
        found = _settings(db).get("diversity")
    return Diversity(**found) if found else None


def groups(store: Store, kind: str, offset: int = 0, limit: int = 50) -> Groups:
    """A page of the groups of rows that are alike, by one of ALIKE. The first row of each is not flagged."""
    if kind not in ALIKE:
        raise FTError(f"{kind!r} is not a kind of likeness", f"It is one of {', '.join(ALIKE)}.")
    with store.reading() as db:
        db.execute(
            "CREATE TEMP TABLE alike AS SELECT first, row_id FROM audited_rows AS a CROSS JOIN rows ON id = row_id"
            f" WHERE flag = ? AND a.conversation = rows.conversation AND {views.TRAINED}",
            (audited.FLAGS.index(kind),),
        )
        total = db.execute("SELECT COUNT(DISTINCT first) FROM alike").fetchone()[0]
        found = db.execute(
            "SELECT first, JSON_GROUP_ARRAY(row_id) FROM (SELECT * FROM alike ORDER BY row_id)"
            " GROUP BY first ORDER BY first LIMIT ? OFFSET ?",
            (limit, offset),
        )
        shown = tuple((first, *json.loads(rows)) for first, rows in found)
        db.execute("DROP TABLE alike")
    return Groups(shown, total)


def resolve(store: Store, kind: str, who: str = "") -> int:
    """Rejects all rows with a flag, as one operation, and returns how many.

    Of rows that are alike that is all but the first of each group, as they are now: where the first was rejected
    meanwhile, the next one stays. Of a leak it is the row that is held out.
    """
    settle(store)
    return store.set_status(Query(flag=kind), "rejected", who)
