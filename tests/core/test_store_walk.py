"""2,000 operations at random, undone and done again, by a process that is killed again and again, against a model of
the store in plain Python: wherever the process dies, the store is as before the operation or as after it, and what
search, filters and orders say of it is what reading every row says."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk, cells, conversations, versions
from ft_core.data.columns import SPLITS, STATUSES, Query
from ft_core.data.store import Counts, Store

WORDS = ["Größe", "今日は", "one", "two", "three", 'say "hi"', "\0", "{n}", "\\1"]
TOOLS = '[{"type":"function","function":{"name":"three_lookup"}}]'
CALL = '{"tool_calls":[{"id":"1","type":"function","function":{"name":"Größe","arguments":"{}"}}]}'
NEEDLES = ("größe", "今日", "は", "hi", "o", "\0", "lookup", "worse", "tw", "no such")
ORIGINS = ("b.jsonl row 1", "a.csv row 2", "generated:20260101-x:r1", "")


@dataclass(frozen=True)
class Line:
    conversation: Conversation
    status: str
    split: str = ""


@dataclass(frozen=True)
class State:
    """Rows by id and the system prompt after an operation; `part` is the job whose next rows it takes too."""

    rows: dict[int, Line] = field(default_factory=dict)
    system: str = ""
    part: str = field(default="", compare=False)

    def put(self, changed: dict[int, Line]) -> State:
        return State({**self.rows, **changed}, self.system)


@dataclass(frozen=True)
class Model:
    """The states before each operation that is done, and as it is now; and what redo gives."""

    past: tuple[State, ...] = (State(),)
    future: tuple[State, ...] = ()
    named: tuple[tuple[str, State], ...] = ()
    used: int = 0

    def after(self, operation: tuple) -> Model:
        do, *given = operation
        if do == "undo":
            return replace(self, past=self.past[:-1], future=self.past[-1:] + self.future) if self.past[1:] else self
        if do == "redo":
            return replace(self, past=self.past + self.future[:1], future=self.future[1:])
        if do == "name":  # what has a name takes nothing more
            named = replace(self.past[-1], part="")
            return replace(self, past=(*self.past[:-1], named), named=(*self.named, (given[0], named)))
        now, used = self._after(do, *given)
        if now == self.past[-1]:
            return self
        joins = do == "part" and not self.future and self.past[-1].part == given[1]
        return replace(self, past=(*self.past[: -1 if joins else None], now), future=(), used=used)

    def _after(self, do: str, *given: Any) -> tuple[State, int]:
        now = self.past[-1]
        rows = now.rows
        some = {id: rows[id] for id in given[0] if id in rows} if isinstance(given[0], list) else {}
        match do:
            case "add" | "part":
                added = [Line(conversation, "candidate") for conversation in given[0]]
                state = now.put(self._new(added))
                return replace(state, part=given[1] if do == "part" else ""), self.used + len(added)
            case "duplicate":
                return now.put(self._new(some.values())), self.used + len(some)
            case "paste":
                over, new = given
                written = {id: _changed(rows[id], lambda c, t=texts: cells.write(c, t)) for id, texts in over.items()}
                empty = Conversation((Message("user", ""), Message("assistant", "")), "typed in")
                added = [Line(cells.write(empty, texts), "candidate") for texts in new]
                return now.put({**written, **self._new(added)}), self.used + len(added)
            case "edit":
                id, messages, rejected = given
                worse = rows[id].conversation.rejected if rejected is None else rejected
                edited = _changed(rows[id], lambda c: replace(c, messages=messages, rejected=worse))
                return now.put({id: edited}), self.used
            case "status" | "split":
                return now.put({id: replace(row, **{do: given[1]}) for id, row in some.items()}), self.used
            case "delete":
                return State({id: row for id, row in rows.items() if id not in some}, now.system), self.used
            case "set_system":
                return State(rows, given[0]), self.used
            case "system":
                first = Message("system", given[1])
                changed = {
                    id: _changed(row, lambda c: replace(c, messages=(first, *_without_system(c.messages))))
                    for id, row in some.items()
                }
                return now.put(changed), self.used
            case "put":
                find, put = given
                return now.put(
                    {id: _changed(row, lambda c: _replaced(c, find, put)) for id, row in rows.items()}
                ), self.used
            case "restore":
                named = dict(self.named)[given[0]]
                return State(named.rows, named.system), self.used
        raise AssertionError(do)

    def _new(self, rows: Any) -> dict[int, Line]:
        return {self.used + 1 + n: row for n, row in enumerate(rows)}


def _changed(row: Line, change: Callable[[Conversation], Conversation]) -> Line:
    return replace(row, conversation=change(row.conversation))


def _replaced(conversation: Conversation, find: str, put: str) -> Conversation:
    messages = tuple(replace(m, content=m.content.replace(find, put)) for m in conversation.messages)
    return replace(conversation, messages=messages)


def _without_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return messages[messages[0].role == "system" :]


def talk(dice: random.Random, text: str) -> Conversation:
    """A conversation of any kind: plain, with tools and a call, or a preference."""
    turns = [Message("user", text), Message("assistant", f"a {dice.choice(WORDS)}")]
    origin = dice.choice(ORIGINS)
    match dice.randrange(5):
        case 0:
            called = (
                turns[0],
                Message("assistant", "", CALL),
                Message("tool", "42", '{"tool_call_id":"1"}'),
                turns[1],
            )
            return Conversation(called, origin, tools=TOOLS)
        case 1:
            return Conversation(tuple(turns), origin, rejected=f"worse {dice.choice(WORDS)}")
    return Conversation(tuple(turns * dice.choice((1, 1, 2))), origin)


def choose(dice: random.Random, model: Model, step: int) -> tuple:
    rows = model.past[-1].rows
    some = dice.sample(sorted(rows), min(len(rows), dice.choice((1, 3, 40))))
    named = [name for name, _ in model.named]
    text = f"{step} {dice.choice(WORDS)} {dice.choice(WORDS)}"
    new = [talk(dice, f"{text} {n}") for n in range(dice.choice((1, 4, 20)))]
    over = {id: {dice.choice(cells.COLUMNS): f"{text} {id}"} for id in some[:5]}
    choices = [
        ("add", new),
        ("part", new, dice.choice(("job 1", "job 1", "job 2"))),
        ("status", some, dice.choice(STATUSES)),
        ("split", some, dice.choice(SPLITS)),
        ("delete", dice.sample(some, len(some) // 2)),
        ("duplicate", some[:5]),
        ("paste", over, [{"prompt": text}] * dice.choice((0, 0, 2))),
        ("system", some, text),
        ("set_system", text),
        ("put", dice.choice(WORDS), dice.choice(WORDS)),
        ("name", str(step)),
        *[("undo",)] * 5,
        *[("redo",)] * 3,
    ]
    choices += (
        [("edit", some[0], (Message("user", text),), dice.choice((None, None, "", "worse still")))] * 2 if some else []
    )
    choices += [("restore", dice.choice(named))] if named else []
    return dice.choice(choices)


def act(store: Store, operation: tuple) -> None:
    match operation:
        case ("add", rows):
            store.add(rows, "candidate")
        case ("part", rows, job):
            store.add(rows, "candidate", part_of=job)
        case ("duplicate", ids):
            bulk.duplicate(store, ids)
        case ("paste", over, new):
            edits = [bulk.Edit(id, store.get(id).version, texts) for id, texts in over.items()]
            bulk.write_cells(store, edits, new)
        case ("edit", id, messages, rejected):
            store.edit(id, messages, store.get(id).version, rejected=rejected)
        case ("status", ids, status):
            store.set_status(ids, status)
        case ("split", ids, side):
            bulk.set_split(store, ids, side)
        case ("delete", ids):
            store.delete(ids)
        case ("set_system", text):
            store.set_system(text)
        case ("system", ids, text):
            bulk.set_system(store, ids, text)
        case ("put", find, put):
            bulk.replace_text(store, Query(), bulk.Find(find, put))
        case ("name", name):
            versions.name(store, name)
        case ("restore", name):
            versions.restore(store, name)
        case ("undo",):
            store.undo()
        case ("redo",):
            store.redo()
    store.index(seconds=0.001)


def worker(path: Path, orders: Connection) -> None:
    with Store(path) as store:
        while True:
            act(store, orders.recv())
            orders.send("done")


def differs(store: Store, model: Model, dice: random.Random) -> str:
    """What of the store is not as the model has it, '' when nothing."""
    now = model.past[-1]
    found = store.rows(limit=10**6)
    trained = [row.split for row in now.rows.values() if row.status != "rejected"]
    statuses = [row.status for row in now.rows.values()]
    counts = Counts(
        len(now.rows),
        trained.count("train"),
        trained.count("heldout"),
        statuses.count("candidate"),
        statuses.count("rejected"),
    )
    states = [operation.state for operation in store.log(10**6)]
    checks = {
        "rows": {r.id: Line(r.conversation, r.status, r.split) for r in found} == now.rows,
        "origins": [r.conversation.origin for r in found]
        == [line.conversation.origin for _, line in sorted(now.rows.items())],
        "system": store.system == now.system,
        "counts": store.counts() == counts,
        "log": (states.count("done"), states.count("undone")) == (len(model.past) - 1, len(model.future)),
        "versions": {v.name for v in versions.versions(store)} == {name for name, _ in model.named},
    }
    queries = [Query(search=dice.choice(NEEDLES)), *(some_query(dice) for _ in range(3))]
    checks |= {str(query): ids(store, query) == asked(now.rows, query) for query in queries}
    if model.named and checks["versions"]:
        name, before = dice.choice(model.named)
        checks[f"diff to {name}"] = _counted(versions.diff(store, name)) == _between(before.rows, now.rows)
    return ", ".join(name for name, well in checks.items() if not well)


def ids(store: Store, query: Query) -> list[int]:
    with store.reading() as db:
        return store.ids(db, query)


def some_query(dice: random.Random) -> Query:
    return Query(
        dice.choice(("all", "all", "review", "rejected", "train", "heldout")),
        dice.choice(("", "", *NEEDLES)),
        dice.choice(("", "", *STATUSES)),
        dice.choice((None, None, *SPLITS)),
        dice.choice(("", "", "b.jsonl", "generated:20260101-x", "typed in", "no such")),
        sort=dice.choice(("position", "chars", "turns", "status", "split", "source")),
        descending=dice.random() < 0.5,
    )


def asked(rows: dict[int, Line], query: Query) -> list[int]:
    """The answer by reading every row."""
    in_view = {
        "all": lambda row: True,
        "review": lambda row: row.status == "candidate",
        "rejected": lambda row: row.status == "rejected",
        "train": lambda row: row.status != "rejected" and row.split == "train",
        "heldout": lambda row: row.status != "rejected" and row.split == "heldout",
    }[query.view]
    key = {
        "position": lambda id: id,
        "chars": lambda id: sum(len(m.content) for m in rows[id].conversation.messages),
        "turns": lambda id: len(rows[id].conversation.messages),
        "status": lambda id: STATUSES.index(rows[id].status),
        "split": lambda id: SPLITS.index(rows[id].split),
        "source": lambda id: conversations.source(rows[id].conversation.origin),
    }[query.sort]
    found = [
        id
        for id, row in sorted(rows.items())
        if in_view(row)
        and query.status in ("", row.status)
        and query.split in (None, row.split)
        and query.source in ("", conversations.source(row.conversation.origin))
        and query.search.casefold() in "\x1e".join(said(row.conversation)).casefold()
    ]
    return sorted(found, key=key, reverse=query.descending)  # equal ones stay in the order in which they came


def said(conversation: Conversation) -> list[str]:
    texts = [text for message in conversation.messages for text in (message.content, message.more)]
    return [*texts, conversation.tools, conversation.rejected]


def _counted(found: versions.Difference) -> tuple[int, int, int]:
    return found.added, found.removed, found.changed


def _between(before: dict[int, Line], now: dict[int, Line]) -> tuple[int, int, int]:
    both = before.keys() & now.keys()
    return len(now.keys() - both), len(before.keys() - both), sum(before[id] != now[id] for id in both)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.oracle) for seed in range(2, 12))])
def test_a_random_walk_with_kills_equals_its_model(tmp_path, seed):
    dice = random.Random(seed)
    path = tmp_path / "data.sqlite"
    context = multiprocessing.get_context("fork")
    model, child, kills, cut_short = Model(), None, 0, 0
    for step in range(2000):
        if child is None:
            orders, theirs = context.Pipe()
            child = context.Process(target=worker, args=(path, theirs), daemon=True)
            child.start()
            theirs.close()
        operation = choose(dice, model, step)
        after = model.after(operation)
        orders.send(operation)
        if dice.random() > 0.08:
            assert orders.recv() == "done"
            model = after
        else:
            time.sleep(dice.uniform(0, 0.008))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            orders.close()
            child, kills = None, kills + 1
            with Store(path) as store:
                if unlike := differs(store, after, dice):
                    assert differs(store, model, dice) == "", (step, operation, f"nor is it as after it: {unlike}")
                    cut_short += 1
                else:
                    model = after
        if child and step % 40 == 0:
            with Store(path) as store:
                assert differs(store, model, dice) == "", (step, operation)
    assert 100 < kills and 3 < cut_short
    os.kill(child.pid, signal.SIGKILL) if child else None
    with Store(path) as store:
        for move, name in ((store.undo, "undo"), (store.redo, "redo")):
            while move():
                model = model.after((name,))
            assert differs(store, model, dice) == ""
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
