"""The store: rows, the log, and that nothing is ever lost or overwritten in silence."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data.store import EditConflict, Store
from ft_core.errors import FTError


def pair(prompt: object, answer: object = "answer") -> Conversation:
    return Conversation((Message("user", str(prompt)), Message("assistant", str(answer))), f"test {prompt}")


def pairs(n: int) -> list[Conversation]:
    return [pair(i) for i in range(n)]


def prompts(store: Store, **view) -> list[str]:
    return [row.conversation.messages[0].content for row in store.rows(**view)]


def test_rows_come_back_as_they_went_in(store):
    odd = Conversation(
        (Message("system", ""), Message("user", 'a\0"\n\\ 👩‍👩‍👧 שלום'), Message("assistant", "x" * 10**6)), "f"
    )
    assert store.add([odd, pair(1)]) == 2
    first, second = store.rows()
    assert (first.conversation, first.conversation.origin) == (odd, "f")
    assert (first.id, first.status, first.split, first.version) == (1, "accepted", "", 1)
    assert store.get(second.id) == second
    with pytest.raises(FTError, match="no row 3"):
        store.get(3)


def test_an_import_that_fails_half_way_leaves_nothing(store):
    def broken():
        yield from pairs(5000)
        raise FTError("line 5001")

    with pytest.raises(FTError):
        store.add(broken())
    assert store.count() == 0 and not store.can_undo
    assert store.add([]) == 0 and not store.can_undo
    assert store.add(pairs(3)) == 3


@pytest.mark.parametrize("messages", [(), (Message("user", "half \ud800"),)])
def test_what_cannot_be_kept_is_refused(store, messages):
    store.add(pairs(1))
    for change in (lambda: store.add([Conversation(messages)]), lambda: store.edit(1, messages, 1)):
        with pytest.raises(FTError):
            change()
    assert store.rows()[0].conversation == pair(0) and store.count() == 1


def test_every_change_is_an_operation_and_can_be_undone(store):
    """Each change with what it does to the picture, then all the way back and forth."""
    changes = [
        lambda: store.add(pairs(10), who="import"),
        lambda: store.edit(3, (Message("user", "edited"), Message("assistant", "a")), 1, who="ada"),
        lambda: store.set_status([1, 2, 99], "rejected", who="ada"),
        lambda: store.delete([2, 4], who="bo"),
        lambda: store.set_system("Be kind.", who="ada"),
        lambda: store.set_split([(5, "heldout"), (6, "train")], 0.1, 7),
        lambda: store.set_system("Be brief."),
        lambda: store.add([pair("late")], "candidate"),
    ]
    pictures = [picture(store)]
    for change in changes:
        change()
        pictures.append(picture(store))
        assert pictures[-1] != pictures[-2]
    log = store.log()
    assert [op.what for op in reversed(log)] == [
        "10 rows added", "row 3 edited", "2 rows rejected", "2 rows deleted", "system prompt changed",
        "split of 2 rows", "system prompt changed", "1 row added",
    ]  # fmt: skip
    assert [op.who for op in log[::-1]][:4] == ["import", "ada", "ada", "bo"]
    assert all(abs(op.at - time.time()) < 60 for op in log)
    for before in reversed(pictures[:-1]):
        store.undo()
        assert picture(store) == before
    assert store.undo() is None and not store.can_undo
    for after in pictures[1:]:
        assert store.redo() is not None
        assert picture(store) == after
    assert store.redo() is None and not store.can_redo


def picture(store: Store) -> tuple:
    """Everything that a person can see, but for the versions, which only count up."""
    rows = [(r.id, r.conversation, r.status, r.split) for r in store.rows(limit=10**6)]
    return rows, store.system, store.split_settings, store.counts()


def test_a_change_after_undo_ends_what_could_be_redone(store):
    store.add(pairs(2))
    store.delete([1])
    store.undo()
    store.set_status([1], "candidate")
    assert not store.can_redo and store.redo() is None
    assert [op.state for op in store.log()] == ["done", "dropped", "done"]
    assert store.undo() == "1 row put back to review" and store.undo() == "2 rows added"


def test_what_changes_nothing_is_no_operation(store):
    store.add(pairs(2))
    assert store.edit(1, store.get(1).conversation.messages, 1).version == 1
    assert store.set_status([1, 2], "accepted") == 0
    assert store.delete([77]) == 0
    store.set_system("")
    assert len(store.log()) == 1


def test_the_later_of_two_edits_is_told_and_shown_both(store):
    store.add([pair("q", "old")])
    first = store.edit(1, (Message("user", "q"), Message("assistant", "mine")), version=1)
    assert first.version == 2
    with pytest.raises(EditConflict, match="now reads: user: q / assistant: mine") as conflict:
        store.edit(1, (Message("user", "q"), Message("assistant", "yours")), version=1)
    assert "yours" in conflict.value.hint and conflict.value.current == first
    assert store.get(1) == first
    store.undo()
    with pytest.raises(EditConflict):  # undo is a change like any other
        store.edit(1, (Message("user", "q"), Message("assistant", "x")), version=2)


def test_views_counts_and_pages(store):
    store.add(pairs(9000))
    store.set_status(range(1, 9001, 3), "candidate")
    store.set_status([2], "rejected")
    store.set_split(((i, "heldout" if i % 10 == 0 else "train") for i in range(1, 9001)), 0.1, 0)
    store.delete([4, 5, 10])
    living = [i for i in range(1, 9001) if i not in (4, 5, 10)]
    expected = {
        "all": living,
        "review": [i for i in living if i % 3 == 1],
        "rejected": [2],
        "train": [i for i in living if i % 10 and i != 2],
        "heldout": [i for i in living if i % 10 == 0],
    }
    for view, ids in expected.items():
        assert store.count(view) == len(ids), view
        for offset in (0, 1, 95, len(ids) // 2, max(0, len(ids) - 7), len(ids), len(ids) + 5000):
            assert [r.id for r in store.rows(offset, 10, view)] == ids[offset : offset + 10], (view, offset)
    counts = store.counts()
    assert (counts.rows, counts.train, counts.heldout, counts.to_review, counts.rejected) == tuple(
        len(expected[view]) for view in ("all", "train", "heldout", "review", "rejected")
    )
    with pytest.raises(FTError, match="no view 'none'"):
        store.rows(view="none")
    with pytest.raises(FTError, match="'fine' is not a status"):
        store.set_status([1], "fine")


def test_search_reads_what_people_read(store):
    store.add([pair("Größe", 'say "hi"'), pair("user"), pair("back\\slash\nline", "100%"), pair("x")])
    for needle, found in [
        ("GRÖSSE", 1),
        ('say "HI', 1),
        ("user", 1),
        ("assistant", 0),
        ("\\slash\nline", 1),
        ("0%", 1),
    ]:
        assert store.count(search=needle) == len(store.rows(search=needle)) == found, needle
    assert prompts(store, search="x") == ["x"]
    assert store.rows(offset=1, search="r") and store.count("rejected", "x") == 0


def test_conversations_are_what_is_trained_on(store):
    own = Conversation((Message("system", "Own."), *pair("b").messages))
    none = Conversation((Message("system", ""), *pair("c").messages))
    store.add([pair("a"), own, none, pair("no"), pair("gone"), pair("held")])
    store.set_status([4], "rejected")
    store.delete([5])
    store.set_system('Say "hi"\n\0')
    store.set_split([(6, "heldout"), (1, "train")], 0.1, 0)
    found = list(store.conversations())
    assert [(id, side) for id, _, side in found] == [(1, "train"), (2, ""), (3, ""), (6, "heldout")]
    assert [c.messages[0].content for _, c, _ in found] == ['Say "hi"\n\0', "Own.", "", 'Say "hi"\n\0']
    assert [id for id, _, _ in store.conversations("heldout")] == [6]
    assert list(store.texts()) == [(id, c.canonical(), side) for id, c, side in found]


def test_fingerprint_is_of_what_is_trained_on(store):
    def fingerprint() -> str:
        return store.stats().fingerprint

    store.add(pairs(3))
    before = fingerprint()
    store.add([pair("x")], "rejected")
    assert fingerprint() == before == fingerprint()
    for change in (
        lambda: store.set_system("Be kind."),
        lambda: store.set_split([(1, "heldout")], 0.1, 0),
        lambda: store.delete([2]),
        lambda: store.edit(1, pair("y").messages, store.get(1).version),
    ):
        change()
        assert fingerprint() != before
        store.undo()
        assert fingerprint() == before


def test_parts_of_a_job_are_one_operation(store):
    for i in range(3):
        store.add([pair(i)], "candidate", part_of="job 1")
    assert [op.what for op in store.log()] == ["3 rows added"]
    store.set_status([1], "accepted")
    store.add([pair(3)], "candidate", part_of="job 1")
    assert len(store.log()) == 3
    store.undo(), store.undo()
    store.add([pair(4)], "candidate", part_of="job 1")  # what was undone stays so
    assert [r.conversation for r in store.rows()] == [pair(0), pair(1), pair(2), pair(4)]
    store.undo()
    assert store.undo() == "3 rows added" and store.count() == 0
    assert store.redo() == "3 rows added" and store.count() == 3


# --- several at once


def test_threads_share_a_store(store):
    store.add(pairs(500))

    def work(n: int) -> int:
        store.add([pair(f"new {n}")])
        store.set_status([n + 1], "rejected")
        return len(store.rows(limit=1000)) + sum(1 for _ in store.conversations())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(200)))
    assert (store.count(), store.count("rejected")) == (700, 200)
    while store.undo():
        pass
    assert store.counts() == type(store.counts())(0, 0, 0, 0, 0)


def test_a_slow_source_does_not_hold_others_up(store):
    """Rows may come from a network while somebody edits."""
    begun, go_on = threading.Event(), threading.Event()
    store.add([pair("first")])

    def slow():
        yield pair("slow 1")
        begun.set()
        assert go_on.wait(30)
        yield pair("slow 2")

    adding = threading.Thread(target=lambda: store.add(slow()))
    adding.start()
    assert begun.wait(30)
    start = time.monotonic()
    store.edit(1, pair("edited").messages, 1)
    store.add([pair("other")])
    assert time.monotonic() - start < 5
    go_on.set()
    adding.join()
    assert prompts(store) == ["edited", "other", "slow 1", "slow 2"]


def test_a_reader_sees_one_state_while_others_write(store):
    store.add(pairs(2000))
    reading = store.conversations()
    next(reading)
    store.set_status(range(1, 2001), "rejected")
    assert sum(1 for _ in reading) == 1999


def _add_many(path: Path, name: str) -> None:
    with Store(path) as store:
        for i in range(50):
            store.add([pair(f"{name} {i}")])


def test_processes_open_and_fill_a_new_store_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(tmp_path / "data.sqlite", str(n))) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    with Store(tmp_path / "data.sqlite") as store:
        assert store.count() == 200 == len({r.conversation for r in store.rows(limit=1000)})


def test_a_new_store_waits_for_who_makes_it(tmp_path):
    maker = sqlite3.connect(tmp_path / "data.sqlite", isolation_level=None, check_same_thread=False)
    maker.execute("BEGIN IMMEDIATE")
    goes = threading.Timer(0.3, maker.rollback)
    goes.start()
    with Store(tmp_path / "data.sqlite") as store:
        assert store.add(pairs(1)) == 1
    goes.join()
    maker.close()


# --- what survives


def test_undo_survives_a_restart(tmp_path):
    with Store(tmp_path / "data.sqlite") as store:
        store.add(pairs(5))
        store.delete([1, 2])
    with Store(tmp_path / "data.sqlite") as store:
        assert store.undo() == "2 rows deleted"
    with Store(tmp_path / "data.sqlite") as store:
        assert store.can_redo and store.count() == 5
        assert store.redo() == "2 rows deleted" and store.count() == 3


KILLED = """
import sys
from pathlib import Path
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
store = Store(Path(sys.argv[1]))
def rows(n):
    for i in range(n):
        yield Conversation((Message("user", f"{n} {i}"), Message("assistant", "a")))
print("ready", flush=True)
while True:
    store.add(rows(300))
    store.set_status(range(1, 400), "rejected")
    store.undo()
    store.delete(range(1, 200))
    store.undo()
"""


def test_a_killed_writer_leaves_whole_operations(tmp_path):
    """Wherever it dies, the rows are those that the log speaks of, and the counts are right."""
    path = tmp_path / "data.sqlite"
    for seed in range(4):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.05, 0.5))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Store(path) as store:
            added = [op for op in store.log(10**6) if op.what == "300 rows added" and op.state == "done"]
            deleted = sum(op.what == "199 rows deleted" and op.state == "done" for op in store.log(10**6))
            assert store.count() == 300 * len(added) - 199 * deleted == len(store.rows(limit=10**6))


def test_a_random_walk_equals_its_model(tmp_path):
    """Operations, undo and redo at random, the store opened anew now and then, against lists in memory."""
    dice = random.Random(5)
    path = tmp_path / "data.sqlite"
    store = Store(path)
    past: list[dict] = [{}]  # what the rows were before each operation, and are now
    future: list[dict] = []
    used = 0
    for step in range(600):
        rows = dict(past[-1])
        some = dice.sample(sorted(rows), min(len(rows), dice.choice((1, 3, 40))))
        match dice.choice(("add", "edit", "status", "delete", "undo", "undo", "redo", "restart")):
            case "add":
                n = dice.choice((1, 5, 60))
                store.add(pair(f"{step}.{i}") for i in range(n))
                rows |= {used + 1 + i: (f"{step}.{i}", "accepted") for i in range(n)}
                used += n
            case "edit" if some:
                store.edit(some[0], pair(f"edited {step}").messages, store.get(some[0]).version)
                rows[some[0]] = (f"edited {step}", rows[some[0]][1])
            case "status" if some:
                status = dice.choice(("accepted", "rejected", "candidate"))
                store.set_status(some, status)
                rows |= {id: (rows[id][0], status) for id in some}
            case "delete" if some:
                store.delete(some)
                rows = {id: row for id, row in rows.items() if id not in some}
            case "undo":
                assert (store.undo() is not None) == (len(past) > 1)
                if len(past) > 1:
                    future.append(past.pop())
                rows = past[-1]
            case "redo":
                assert (store.redo() is not None) == bool(future)
                if future:
                    past.append(future.pop())
                rows = past[-1]
            case "restart":
                store.close()
                store = Store(path)
        if rows != past[-1]:
            past.append(rows)
            future.clear()
        assert {r.id: (r.conversation.messages[0].content, r.status) for r in store.rows(limit=10**6)} == past[-1]
        assert store.count("rejected") == sum(status == "rejected" for _, status in past[-1].values())
    assert len(past) > 20
    store.close()


def test_a_file_that_is_no_store(tmp_path):
    path = tmp_path / "data.sqlite"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(FTError, match="cannot be opened as a dataset"):
        Store(path)
    with pytest.raises(FTError, match="cannot be opened as a dataset"):
        Store(tmp_path / "no" / "data.sqlite")
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(FTError, match="newer FT Flow"):
        Store(newer)


def test_messages_lie_in_the_file_as_canonical_json(tmp_path):
    """Another program, and plan and purpose of the fingerprint, rely on it."""
    with Store(tmp_path / "data.sqlite") as store:
        store.add([pair("é")])
        with sqlite3.connect(store.path) as db:
            (text,) = db.execute("SELECT messages FROM conversations").fetchone()
        db.close()
    assert json.loads(text) == [["user", "é"], ["assistant", "answer"]] and text == pair("é").canonical()
