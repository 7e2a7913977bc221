"""2,000 operations at random, undone and done again, by a process that is killed again and again, against a model of
the store in plain Python: wherever the process dies, the store is as before the operation or as after it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk, versions
from ft_core.data.columns import Query
from ft_core.data.store import Counts, Store

WORDS = ["Größe", "今日は", "one", "two", "three", 'say "hi"', "\0", "{n}", "\\1"]

Turns = tuple[tuple[str, str], ...]
Rows = dict[int, tuple[Turns, str, str]]


@dataclass(frozen=True)
class Model:
    """Rows and system prompt before each operation that is done, and as they are now; and what redo gives."""

    past: tuple[tuple[Rows, str], ...] = (({}, ""),)
    future: tuple[tuple[Rows, str], ...] = ()
    named: tuple[tuple[str, tuple[Rows, str]], ...] = ()
    used: int = 0

    def after(self, operation: tuple) -> Model:
        do, *given = operation
        if do == "undo":
            return replace(self, past=self.past[:-1], future=self.past[-1:] + self.future) if self.past[1:] else self
        if do == "redo":
            return replace(self, past=self.past + self.future[:1], future=self.future[1:])
        if do == "name":
            return replace(self, named=(*self.named, (given[0], self.past[-1])))
        now, used = self._after(do, *given)
        if now == self.past[-1]:
            return self
        return replace(self, past=(*self.past, now), future=(), used=used)

    def _after(self, do: str, *given) -> tuple[tuple[Rows, str], int]:
        rows, system = self.past[-1]
        some = [id for id in given[0] if id in rows] if isinstance(given[0], list) else []
        match do:
            case "add":
                new = [(turns, given[1], "") for turns in given[0]]
            case "duplicate":
                new = [rows[id] for id in some]
            case "edit":
                return ({**rows, given[0]: (given[1], *rows[given[0]][1:])}, system), self.used
            case "status":
                return ({**rows, **{id: (rows[id][0], given[1], rows[id][2]) for id in some}}, system), self.used
            case "split":
                return ({**rows, **{id: (*rows[id][:2], given[1]) for id in some}}, system), self.used
            case "delete":
                return ({id: row for id, row in rows.items() if id not in some}, system), self.used
            case "set_system":
                return (rows, given[0]), self.used
            case "system":
                changed = {id: ((("system", given[1]), *_without_system(rows[id][0])), *rows[id][1:]) for id in some}
                return ({**rows, **changed}, system), self.used
            case "put":
                find, put = given
                changed = {
                    id: (tuple((role, text.replace(find, put)) for role, text in turns), *rest)
                    for id, (turns, *rest) in rows.items()
                }
                return (changed, system), self.used
            case "restore":
                return dict(self.named)[given[0]], self.used
        return ({**rows, **{self.used + 1 + n: row for n, row in enumerate(new)}}, system), self.used + len(new)


def _without_system(turns: Turns) -> Turns:
    return turns[turns[0][0] == "system" :]


def conversation(turns: Turns) -> Conversation:
    return Conversation(tuple(Message(*turn) for turn in turns))


def choose(dice: random.Random, model: Model, step: int) -> tuple:
    rows = model.past[-1][0]
    some = dice.sample(sorted(rows), min(len(rows), dice.choice((1, 3, 40))))
    named = [name for name, _ in model.named]
    text = f"{step} {dice.choice(WORDS)} {dice.choice(WORDS)}"
    choices = [
        ("add", [(("user", f"{text} {n}"), ("assistant", "a")) for n in range(dice.choice((1, 4, 20)))], "candidate"),
        ("status", some, dice.choice(("accepted", "rejected", "candidate"))),
        ("split", some, dice.choice(("train", "heldout", ""))),
        ("delete", dice.sample(some, len(some) // 2)),
        ("duplicate", some[:5]),
        ("system", some, text),
        ("set_system", text),
        ("put", dice.choice(WORDS), dice.choice(WORDS)),
        ("name", str(step)),
        *[("undo",)] * 5,
        *[("redo",)] * 3,
    ]
    choices += [("edit", some[0], (("user", text),))] * 2 if some else []
    choices += [("restore", dice.choice(named))] if named else []
    return dice.choice(choices)


def act(store: Store, operation: tuple) -> None:
    match operation:
        case ("add", rows, status):
            store.add(map(conversation, rows), status)
        case ("duplicate", ids):
            bulk.duplicate(store, ids)
        case ("edit", id, turns):
            store.edit(id, conversation(turns).messages, store.get(id).version)
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


def differs(store: Store, model: Model) -> str:
    """What of the store is not as the model has it, '' when nothing."""
    rows, system = model.past[-1]
    found = {
        r.id: (tuple((m.role, m.content) for m in r.conversation.messages), r.status, r.split)
        for r in store.rows(limit=10**6)
    }
    trained = [side for _, status, side in rows.values() if status != "rejected"]
    statuses = [status for _, status, _ in rows.values()]
    counts = Counts(
        len(rows),
        trained.count("train"),
        trained.count("heldout"),
        statuses.count("candidate"),
        statuses.count("rejected"),
    )
    having = [id for id, (turns, *_) in rows.items() if any("grösse" in text.casefold() for _, text in turns)]
    checks = {
        "rows": found == rows,
        "system": store.system == system,
        "counts": store.counts() == counts,
        "undo": store.can_undo == (len(model.past) > 1),
        "redo": store.can_redo == bool(model.future),
        "search": [r.id for r in store.rows(limit=10**6, search="größe")] == sorted(having),
        "versions": {v.name for v in versions.versions(store)} == {name for name, _ in model.named},
    }
    return ", ".join(name for name, well in checks.items() if not well)


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
        if dice.random() > 0.1:
            assert orders.recv() == "done"
            model = after
        else:
            time.sleep(dice.uniform(0, 0.008))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            orders.close()
            child, kills = None, kills + 1
            with Store(path) as store:
                if differs(store, after):
                    assert differs(store, model) == "", (step, operation)
                    cut_short += 1
                else:
                    model = after
        if child and step % 20 == 0:
            with Store(path) as store:
                assert differs(store, model) == "", (step, operation)
    assert 100 < kills and 3 < cut_short
    os.kill(child.pid, signal.SIGKILL) if child else None
    with Store(path) as store:
        for move, name in ((store.undo, "undo"), (store.redo, "redo")):
            while move():
                model = model.after((name,))
            assert differs(store, model) == ""
