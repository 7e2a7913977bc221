"""Named versions: what lies between two of them, and the way back."""

from __future__ import annotations

import random

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk, versions
from ft_core.data.columns import Query
from ft_core.data.store import Store
from ft_core.errors import FTError


def pair(prompt: object) -> Conversation:
    return Conversation((Message("user", str(prompt)), Message("assistant", "a")), f"f row {prompt}")


def picture(store: Store) -> dict[int, tuple]:
    return {r.id: (r.conversation, r.status, r.split) for r in store.rows(limit=10**6)}


def between(store: Store, before: str, after: str = "") -> dict[int, tuple]:
    """Id -> kind, and both sides as `picture` has them."""
    found = versions.diff(store, before, after, limit=10**6)
    kinds = [change.kind for change in found.changes]
    assert (found.added, found.removed, found.changed) == tuple(map(kinds.count, ("added", "removed", "changed")))
    return {
        c.id: (
            c.kind,
            *((side.conversation, side.status, side.split) if side else None for side in (c.before, c.after)),
        )
        for c in found.changes
    }


def expected(before: dict[int, tuple], after: dict[int, tuple]) -> dict[int, tuple]:
    ids = sorted(before.keys() | after.keys())
    kinds = {id: "added" if id not in before else "removed" if id not in after else "changed" for id in ids}
    return {id: (kinds[id], before.get(id), after.get(id)) for id in ids if before.get(id) != after.get(id)}


def test_a_version_is_named_compared_and_gone_back_to(store):
    store.add(pair(n) for n in range(5))
    store.set_system("Old.")
    assert versions.name(store, " first ", "ada").name == "first"
    store.edit(1, pair("new").messages, 1)
    store.set_status([2], "rejected")
    store.delete([3])
    store.add([pair("late")])
    store.set_system("New.")
    assert between(store, "first") == {
        1: ("changed", (pair(0), "accepted", ""), (pair("new"), "accepted", "")),
        2: ("changed", (pair(1), "accepted", ""), (pair(1), "rejected", "")),
        3: ("removed", (pair(2), "accepted", ""), None),
        6: ("added", None, (pair("late"), "accepted", "")),
    }
    found = versions.diff(store, "first", offset=1, limit=2)
    assert [c.id for c in found.changes] == [2, 3] and found.system == ("Old.", "New.")
    assert between(store, "first", "first") == {}
    before = picture(store)
    assert versions.restore(store, "first", "bo") == 4
    assert between(store, "first") == {} and store.system == "Old."
    assert [v.current for v in versions.versions(store)] == [False]  # an operation of its own, with the same outcome
    assert store.log()[0].what == "back to version first" and store.log()[0].who == "bo"
    store.undo()
    assert picture(store) == before and store.system == "New."


def test_a_text_that_came_back_is_no_change(store):
    store.add([pair("one"), pair("other")])
    versions.name(store, "first")
    for old, new in (("one", "two"), ("two", "one")):
        bulk.replace_text(store, Query(), bulk.Find(old, new))
    assert between(store, "first") == {}
    assert versions.restore(store, "first") == 0
    assert len(store.log()) == 3

    store.edit(2, pair("new").messages, store.get(2).version)
    assert list(between(store, "first")) == [2]
    assert versions.restore(store, "first") == 1
    assert between(store, "first") == {}


def test_names(store):
    store.add([pair(1)])
    versions.name(store, "a")
    for name, said in (("a", "there is a version 'a' already"), (" ", "a version needs a name")):
        with pytest.raises(FTError, match=said):
            versions.name(store, name)
    for act in (lambda: versions.diff(store, "a", "b"), lambda: versions.restore(store, "b")):
        with pytest.raises(FTError, match="there is no version 'b'"):
            act()
    assert versions.versions(store)[0].current and versions.restore(store, "a") == 0 and len(store.log()) == 1
    versions.name(store, "{n} x")
    store.delete([1])
    versions.restore(store, "{n} x")
    assert store.count() == 1


def test_a_job_goes_on_beside_a_version(store):
    store.add([pair(1)], part_of="job")
    versions.name(store, "half")
    store.add([pair(2)], part_of="job")
    store.add([pair(3)], part_of="job")
    assert list(between(store, "half")) == [2, 3] and len(store.log()) == 2
    versions.restore(store, "half")
    assert store.count() == 1


def test_versions_on_branches_that_were_undone_for_good(store):
    """Names at random between operations, undo and redo; every pair of them, and every way back."""
    dice = random.Random(11)
    pictures: dict[str, dict] = {}
    store.add(pair(n) for n in range(30))
    for step in range(250):
        living = [r.id for r in store.rows(limit=1000)]
        some = dice.sample(living, min(len(living), dice.choice((1, 3, 10))))
        match dice.choice(("add", "edit", "status", "split", "delete", "copy", "put", "undo", "undo", "redo", "name")):
            case "add":
                store.add([pair(step), pair(-step)])
            case "edit" if some:
                store.edit(some[0], pair(f"edit {step}").messages, store.get(some[0]).version)
            case "status":
                store.set_status(some, dice.choice(("accepted", "rejected", "candidate")))
            case "split":
                bulk.set_split(store, some, dice.choice(("train", "heldout", "")))
            case "delete":
                store.delete(some[:2])
            case "copy":
                bulk.duplicate(store, some[:2])
            case "put":
                bulk.replace_text(store, Query(search="1"), bulk.Find("1", str(step)))
            case "undo":
                store.undo()
            case "redo":
                store.redo()
            case "name":
                versions.name(store, str(step))
                pictures[str(step)] = picture(store)
                if dice.random() < 0.5:
                    version = dice.choice(list(pictures))
                    versions.restore(store, version)
                    assert picture(store) == pictures[version]
    assert len(pictures) > 12
    for a in pictures:
        assert between(store, a) == expected(pictures[a], picture(store))
        for b in dice.sample(list(pictures), 4):
            assert between(store, a, b) == expected(pictures[a], pictures[b]), (a, b)
