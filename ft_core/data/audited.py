"""What the audit (audit.py) found, as the store keeps it.

Conversations never change, so what is found in one is kept by its id and holds for good: an edit gives the row another
conversation, and undo gives it back the one that was looked at already. Its tokens hold for the base model and the
system prompt that they were counted with; what a limit takes of them follows without a second look. What is found of a
row among the others (that there is an earlier one like it) is kept by row and names the conversation that it was found
for, so an edit of that row ends it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..render import Counts
from . import views
from .flags import Flag, score

FLAGS = (
    "empty",
    "too_short",
    "too_long",
    "repetitive",
    "misspelt",
    "cut_off",
    "refusal",
    "personal_data",
    "secret",
    "template",
    "nothing_learnt",
    "cut",
    "language",
    "duplicate",
    "near_duplicate",
    "similar",
    "leak",
)
"""All that a row can be flagged with. The place is the bit in the file: new ones come last, and none ever goes."""

OF_TOKENS = ("template", "nothing_learnt", "cut")
"""Those that a base model decides."""
AMONG_OTHERS = ("language", "duplicate", "near_duplicate", "similar", "leak")
"""Those that the other rows decide."""

SCHEMA = (
    """CREATE TABLE audited(
    id INTEGER PRIMARY KEY,              -- of the conversation
    alike INTEGER NOT NULL,              -- the same for rows that differ in case and white space alone
    flags INTEGER NOT NULL,              -- bit i is FLAGS[i]; those that other rows decide are in audited_rows
    tokens INTEGER,                      -- NULL while they are not counted, 0 where the template refuses
    learnt INTEGER,                      -- of them, within the limit
    lost INTEGER,                        -- that would be learnt, past the limit
    runs TEXT NOT NULL DEFAULT '[]',     -- Counts.runs, as JSON
    language TEXT NOT NULL,              -- of the answers, '' where it cannot be told
    reasons TEXT NOT NULL DEFAULT '{}'   -- a JSON object by flag
)""",
    """CREATE TABLE audited_rows(
    row_id INTEGER NOT NULL,
    flag INTEGER NOT NULL,               -- place in FLAGS
    conversation INTEGER NOT NULL,       -- what the row said when this was found
    first INTEGER NOT NULL,              -- the row that begins the group, or that it is held against
    reason TEXT NOT NULL,
    PRIMARY KEY(row_id, flag)
) WITHOUT ROWID""",
    # The texts that were last compared with each other, with the group of each; NULL for none.
    "CREATE TABLE compared(alike INTEGER PRIMARY KEY, near INTEGER, similar INTEGER)",
)


@dataclass(frozen=True)
class Audit:
    """What was found of one row."""

    tokens: int | None
    """As the model sees it, with the system prompt; also those past the limit. None while they are not counted."""
    learnt: int | None
    """Of them, those that teach something, within the limit."""
    lost: int | None
    """Those that would be learnt, past the limit."""
    score: int
    """0 to 100; see flags.score."""
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Said:
    """What the text of a conversation shows; it depends on nothing else."""

    conversation: int
    alike: int
    flags: tuple[Flag, ...]
    language: str


@dataclass(frozen=True)
class Counted:
    """What a base model sees of a conversation. `refusal` has the words of its template, '' for none."""

    conversation: int
    counts: Counts
    refusal: str = ""


def mask(names: Iterable[str]) -> int:
    return sum(1 << FLAGS.index(name) for name in names)


def names(mask: int) -> tuple[str, ...]:
    """In the order of FLAGS."""
    return tuple(name for i, name in enumerate(FLAGS) if mask >> i & 1)


def keep_said(db: sqlite3.Connection, found: Iterable[Said]) -> None:
    """Keeps the tokens where they are counted already."""
    db.executemany(
        "INSERT INTO audited(id, alike, flags, language, reasons) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        f" alike = excluded.alike, flags = flags & {mask(OF_TOKENS)} | excluded.flags, language = excluded.language,"
        " reasons = excluded.reasons",
        (
            (
                s.conversation,
                s.alike,
                mask(f.name for f in s.flags),
                s.language,
                _json({f.name: f.reason for f in s.flags}),
            )
            for s in found
        ),
    )


def keep_counted(db: sqlite3.Connection, found: Iterable[Counted], limit: int) -> None:
    """Of conversations whose text was looked at; `limit` is the most tokens that are trained on."""
    db.executemany(
        "UPDATE audited SET tokens = ?, learnt = ?, lost = ?, runs = ?, reasons = JSON_PATCH(reasons, ?),"
        f" flags = flags & ~{mask(OF_TOKENS)} | ? WHERE id = ?",
        ((*_figures(c, limit), c.conversation) for c in found),
    )


def _figures(found: Counted, limit: int) -> tuple[int, int, int, str, str, int]:
    counts, learnt = found.counts, found.counts.learnt(limit)
    flags = {
        "template": bool(found.refusal),
        "nothing_learnt": not found.refusal and learnt == 0,
        "cut": counts.tokens > limit,
    }
    reason = _json({"template": found.refusal or None})  # None takes an earlier one away
    return counts.tokens, learnt, counts.learnt() - learnt, json.dumps(counts.runs), reason, mask(_true(flags))


def _true(flags: dict[str, bool]) -> list[str]:
    return [name for name, so in flags.items() if so]


def counted(r: sqlite3.Row) -> Counted:
    """Of a row of `audited` with id, tokens, runs and reasons."""
    refusal = json.loads(r["reasons"]).get("template", "")
    return Counted(r["id"], Counts(r["tokens"], tuple(map(tuple, json.loads(r["runs"])))), refusal)


def counts(db: sqlite3.Connection, rows: Sequence[int]) -> Iterator[tuple[int, Counted]]:
    """By row, of those whose tokens are counted, in their order."""
    found = db.execute(
        "SELECT rows.id AS row, audited.id AS id, tokens, runs, reasons FROM json_each(?)"
        " CROSS JOIN rows ON rows.id = value CROSS JOIN audited ON audited.id = conversation"
        " WHERE tokens IS NOT NULL ORDER BY key",
        (json.dumps(rows),),
    )
    return ((r["row"], counted(r)) for r in found)


def set_limit(db: sqlite3.Connection, before: int, now: int) -> None:
    """What is cut at `now` tokens of what was counted, where that may be otherwise than at `before`."""
    found = db.execute(
        "SELECT id, tokens, runs, reasons FROM audited WHERE tokens > ?", (min(before, now),)
    ).fetchall()
    if found:
        keep_counted(db, map(counted, found), now)
        restamp_all(db)


def forget_counts(db: sqlite3.Connection) -> None:
    """They were of another base model, or under another system prompt."""
    db.execute(
        "UPDATE audited SET tokens = NULL, learnt = NULL, lost = NULL, runs = '[]',"
        f" flags = flags & ~{mask(OF_TOKENS)}, reasons = JSON_REMOVE(reasons, '$.template') WHERE tokens IS NOT NULL"
    )
    restamp_all(db)


def restamp(db: sqlite3.Connection, rows: Iterable[int]) -> None:
    """Tells whoever keeps rows in memory (columns.py) that something was found of these."""
    blocks = {row >> views.BLOCK_BITS for row in rows}
    db.executemany("UPDATE blocks SET audited = RANDOM() WHERE block = ?", ((block,) for block in blocks))


def restamp_all(db: sqlite3.Connection) -> None:
    db.execute("UPDATE blocks SET audited = RANDOM()")


def of(db: sqlite3.Connection, ids: Sequence[int]) -> dict[int, Audit]:
    """By row; rows that nobody has looked at are not in it."""
    rows = json.dumps(ids)
    among: dict[int, list[Flag]] = {}
    for id, flag, reason in db.execute(
        "SELECT row_id, flag, reason FROM json_each(?) CROSS JOIN rows ON rows.id = value"
        " CROSS JOIN audited_rows AS a ON row_id = rows.id AND a.conversation = rows.conversation ORDER BY flag",
        (rows,),
    ):
        among.setdefault(id, []).append(Flag(FLAGS[flag], reason))
    found = db.execute(
        "SELECT rows.id AS row, flags, tokens, learnt, lost, reasons FROM json_each(?)"
        " CROSS JOIN rows ON rows.id = value CROSS JOIN audited ON audited.id = conversation",
        (rows,),
    )
    return {r["row"]: _audit(r, among.get(r["row"], [])) for r in found}


def _audit(r: sqlite3.Row, among: list[Flag]) -> Audit:
    reasons = json.loads(r["reasons"])
    if r["tokens"] is not None:
        reasons["nothing_learnt"] = "nothing of it is learnt"
        reasons["cut"] = f"{r['tokens']:,} tokens are too many; {r['lost']:,} of its answers are not learnt"
    flags = (*(Flag(name, reasons.get(name, "")) for name in names(r["flags"])), *among)
    return Audit(r["tokens"], r["learnt"], r["lost"], score(flag.name for flag in flags), flags)


def _json(value: dict[str, str | None]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
