"""Several processes write to one store at once: a generation adds, a page edits, somebody else undoes."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path

from ft_core.conversation import Conversation, Message
from ft_core.data.columns import Query
from ft_core.data.store import EditConflict, Store
from ft_core.errors import FTError

ADDS, EDITS, MOVES = 80, 120, 120
Done = dict[str, tuple]
"""What succeeded, by the name it was done under: the rows' texts, or a row and its new text."""


def generation(store: Store, done: Done) -> None:
    for n in range(ADDS):
        texts = tuple(f"row {n}.{i}" for i in range(3))
        store.add((Conversation((Message("user", text),)) for text in texts), who=f"add {n}")
        done[f"add {n}"] = texts


def page(store: Store, done: Done) -> None:
    dice = random.Random(1)
    n = 0
    while n < EDITS:
        rows = store.page(Query(search="row", sort="chars"), limit=100).rows
        if not rows:
            continue
        row, text = dice.choice(rows), f"row, edited {n}"
        try:
            store.edit(row.id, (Message("user", text),), row.version, who=f"edit {n}")
        except EditConflict as conflict:
            assert conflict.current.version != row.version
        except FTError as gone:  # its addition was undone meanwhile
            assert "there is no row" in gone.message
        else:
            done[f"edit {n}"] = (row.id, text)
            n += 1


def somebody(store: Store, done: Done) -> None:
    dice = random.Random(2)
    n = 0
    while n < MOVES:
        move = dice.choice((store.undo, store.undo, store.redo))
        what = move(who=f"move {n}")
        if what is not None:
            done[f"move {n}"] = (move.__name__, what)
            n += 1


def run(path: Path, work: Callable[[Store, Done], None], start, told: Queue) -> None:
    done: Done = {}
    problem = ""
    start.wait()
    try:
        with Store(path) as store:
            work(store, done)
    except Exception as error:
        problem = f"{work.__name__}: {error!r}"
    told.put((done, problem))


def test_three_processes_at_once_lose_nothing_and_never_find_it_locked(tmp_path: Path) -> None:
    path = tmp_path / "data.sqlite"
    Store(path).close()
    context = multiprocessing.get_context("fork")
    start, told = context.Barrier(3), context.Queue()
    workers = [context.Process(target=run, args=(path, work, start, told)) for work in (generation, page, somebody)]
    for worker in workers:
        worker.start()
    done: Done = {}
    for _ in workers:
        theirs, problem = told.get(timeout=100)
        assert problem == ""
        done |= theirs
    for worker in workers:
        worker.join()
    moves = [name for name in done if name.startswith("move")]
    assert len(done) - len(moves) == ADDS + EDITS and len(moves) == MOVES

    expected: dict[int, str] = {}
    with Store(path) as store:
        log = store.log(10**6)[::-1]
        assert {operation.who for operation in log} == set(done) - set(moves)
        used = 0
        for operation in log:
            holds = operation.state == "done"
            if operation.who.startswith("add"):
                for text in done[operation.who]:
                    used += 1
                    expected |= {used: text} if holds else {}
            elif holds:
                id, text = done[operation.who]
                assert id in expected
                expected[id] = text
        rows = store.rows(limit=10**6)
        assert {row.id: row.conversation.messages[0].content for row in rows} == expected
        assert store.counts().rows == len(expected)
        found = [row.id for row in store.page(Query(search="edited"), limit=10**6).rows]
        assert found == [id for id, text in sorted(expected.items()) if "edited" in text]
