"""Changes to many rows: one operation each, on ids or on all that a query finds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ft_core.conversation import ROLES, Conversation, Message
from ft_core.data import bulk, cells
from ft_core.data.bulk import Edit, Find
from ft_core.data.columns import Query
from ft_core.data.store import EditConflict, Store
from ft_core.errors import FTError

ALL = Query()


def pair(prompt: object, answer: object = "answer", system: str | None = None) -> Conversation:
    first = () if system is None else (Message("system", system),)
    return Conversation((*first, Message("user", str(prompt)), Message("assistant", str(answer))), f"f row {prompt}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store(tmp_path / "data.sqlite") as store:
        store.add(pair(f"Number {n}", "Fine, fine." if n % 2 else "No.") for n in range(1, 101))
        yield store


def picture(store: Store) -> list[tuple]:
    return [(r.id, r.conversation, r.status, r.split) for r in store.rows(limit=1000)]


@pytest.mark.parametrize(
    "change, count, said",
    [
        (lambda s, rows: s.set_status(rows, "rejected"), 20, "20 rows rejected"),
        (lambda s, rows: s.delete(rows), 20, "20 rows deleted"),
        (lambda s, rows: bulk.duplicate(s, rows), 20, "20 rows duplicated"),
        (lambda s, rows: bulk.set_split(s, rows, "heldout"), 20, "20 rows held out"),
        (lambda s, rows: bulk.set_system(s, rows, "Be {kind}."), 20, "system message of 20 rows changed"),
        (lambda s, rows: bulk.replace_text(s, rows, Find("1", "{}")), 20, "replaced “1” by “{}” in 20 rows"),
    ],
)
def test_each_is_one_operation_on_ids_or_on_what_a_query_finds(store, change, count, said):
    pictures = [picture(store)]
    query = Query(search="number 1")  # 1, 10 to 19, 100, of these one is deleted: with 21, 31 ... it would be more
    ids = [r.id for r in store.page(query).rows]
    query_rows = [*ids, *range(21, 100, 10)]
    for selection in ([*query_rows, 9999], Query(search="1")):
        n = change(store, selection)
        assert n == len(query_rows) == count
        assert [op.what for op in store.log() if op.state == "done"] == [said, "100 rows added"]
        pictures.append(picture(store))
        assert store.undo() == said and picture(store) == pictures[0]
        store.redo()
        assert picture(store) == pictures[-1]
        store.undo()
        assert change(store, []) == 0
    assert pictures[1] == pictures[2] != pictures[0] or said.endswith("duplicated")


def test_copies_are_like_their_rows(store):
    store.set_status([3], "candidate")
    bulk.set_split(store, [5], "heldout")
    store.delete([4])
    assert bulk.duplicate(store, [5, 4, 3]) == 2
    copies = store.rows(99, 10)
    assert [(r.conversation, r.status, r.split) for r in copies] == [
        (store.get(5).conversation, "accepted", "heldout"),
        (store.get(3).conversation, "candidate", ""),
    ]
    store.edit(copies[0].id, pair("mine").messages, 1)
    assert store.get(5).conversation == pair("Number 5", "Fine, fine.")


def test_a_pasted_block_is_one_operation_of_edits_and_new_rows(store):
    before = picture(store)
    edits = [Edit(2, 1, {"prompt": "Two?", "response": "Two."}), Edit(3, 1, {"response": "No."}), Edit(5, 1, {})]
    assert bulk.write_cells(store, edits, [{"prompt": "New\n?"}, {"prompt": "a", "response": "b"}]) == 4
    assert store.get(2).conversation == pair("Two?", "Two.") and store.get(3).conversation.messages[1].content == "No."
    assert [(r.conversation, r.status) for r in store.rows(100, 10)] == [
        (pair("New\n?", ""), "candidate"),
        (pair("a", "b"), "candidate"),
    ]
    after = picture(store)
    assert store.undo() == "2 rows edited, 2 rows added" and picture(store) == before
    store.redo()
    assert picture(store) == after
    store.undo()
    assert bulk.write_cells(store, [], [{}]) == 1 and store.undo() == "1 row added"
    assert bulk.write_cells(store, [Edit(7, 1, {"prompt": "Number 7"})]) == 0
    assert store.log(1)[0].what == "1 row added"


def test_a_block_over_a_row_that_somebody_changed_is_refused_as_a_whole(store):
    store.edit(3, pair("theirs").messages, 1)
    store.delete([4])
    before, log = picture(store), store.log()
    with pytest.raises(EditConflict) as conflict:
        bulk.write_cells(store, [Edit(2, 1, {"prompt": "mine"}), Edit(3, 1, {"prompt": "mine"})], [{"prompt": "x"}])
    assert conflict.value.current == store.get(3) and conflict.value.yours == pair("mine").messages
    with pytest.raises(FTError, match="there is no row 4"):
        bulk.write_cells(store, [Edit(2, 1, {"prompt": "mine"}), Edit(4, 2, {"prompt": "mine"})])
    with pytest.raises(FTError, match="no column 'status'"):
        bulk.write_cells(store, [Edit(2, 1, {"status": "rejected"})])
    assert picture(store) == before and store.log() == log


@given(st.lists(st.tuples(st.sampled_from(ROLES), st.text(max_size=3))), st.sampled_from(cells.COLUMNS), st.text())
def test_a_cell_reads_as_it_was_written_and_nothing_else_changes(turns, column, text):
    conversation = Conversation(tuple(Message(*turn) for turn in turns), "f", "[1]", "worse")
    written = cells.write(conversation, {column: text})
    assert cells.read(written) == {**cells.read(conversation), column: text}
    assert (written.tools, written.rejected, written.origin) == ("[1]", "worse", "f")
    assert cells.write(written, cells.read(written)) == written
    assert abs(len(written.messages) - len(conversation.messages)) <= 1


def test_a_system_message_is_set_replaced_and_removed(store):
    store.add([pair("with", system="Old."), Conversation((Message("system", "alone"),))])
    assert bulk.set_system(store, [1, 101], "New.") == 2
    assert [store.get(id).conversation.messages[0].content for id in (1, 101)] == ["New.", "New."]
    assert len(store.get(101).conversation.messages) == 3
    assert bulk.set_system(store, [1, 2, 101, 102], "") == 2  # 2 has none, and of 102 nothing would be left
    assert store.get(1).conversation == pair("Number 1", "Fine, fine.") and store.get(101).conversation == pair("with")


@pytest.mark.parametrize(
    "find, rows, places, first",
    [
        (Find("fine", "good"), 50, 50, "Fine, good."),
        (Find("FINE", "good", case=False), 50, 100, "good, good."),
        (Find("Fine", "good", role="user"), 0, 0, None),
        (Find("."), 100, 100, "Fine, fine"),
        (Find(r"(\w+), (?P<b>\w+)", r"\g<b>; \1", regex=True), 50, 50, "fine; Fine."),
        (Find(r"^f", "F", regex=True, case=False), 0, 0, None),  # what changes nothing is no change
        (Find("Fine", r"\1"), 50, 50, r"\1, fine."),
        (Find("numbers"), 0, 0, None),
    ],
)
def test_find_and_replace_does_what_its_preview_shows(store, find, rows, places, first):
    before = picture(store)
    for selection in (ALL, range(1, 101)):
        seen = bulk.preview(store, selection, find, limit=3)
        assert (seen.rows, seen.places, len(seen.replacements)) == (rows, places, min(rows, 3))
        assert picture(store) == before
        assert bulk.replace_text(store, selection, find) == rows
        for replacement in seen.replacements:
            assert store.get(replacement.id).conversation == replacement.after != replacement.before
        if first:
            assert seen.replacements[0].after.messages[1].content == first
            store.undo()
        assert picture(store) == before


@pytest.mark.parametrize(
    "find, said",
    [
        (Find(""), "nothing to find"),
        (Find("(", regex=True), "the pattern cannot be read: missing )"),
        (Find("nowhere", r"\1", regex=True), "the pattern cannot be read: invalid group reference"),
        (Find("a", r"\g<x>", regex=True), "the pattern cannot be read: unknown group"),
        (Find("a", "\ud800"), "half a character"),
        (Find("a", role="robot"), "'robot' is not a role"),
    ],
)
def test_what_cannot_be_replaced_is_said(store, find, said):
    with pytest.raises(FTError, match=said.replace(")", r"\)")):
        bulk.preview(store, ALL, find)


def test_a_pattern_that_never_ends_is_stopped_and_nothing_is_changed(store):
    store.add([pair("a" * 70 + "b")])
    before = picture(store)
    start = time.monotonic()
    for act in (bulk.preview, bulk.replace_text):
        with pytest.raises(FTError, match="the pattern takes too long, for example on: “aaaa"):
            act(store, ALL, Find("^(a|aa)+$", "x", regex=True))
    assert time.monotonic() - start < 30
    assert picture(store) == before and len(store.log()) == 2


def test_what_others_change_meanwhile_is_rewritten_as_it_stands_then(store, tmp_path):
    """The rows are rewritten beside other writers; none of these is overwritten, and none waits."""

    class Slow(bulk._Substitution):
        def __call__(self, conversation):
            if conversation.messages[0].content == "Number 50":
                with Store(store.path) as other:
                    other.edit(1, pair("Number one, fine", "theirs").messages, 1)
                    other.delete([3])
            return super().__call__(conversation)

    changed = bulk._rewrite(store, ALL, Slow(Find("fine", "good")), "{n} changed", "me")
    assert changed == 49
    assert [m.content for m in store.get(1).conversation.messages] == ["Number one, good", "theirs"]
    assert [op.what for op in store.log()[:3]] == ["49 rows changed", "1 row deleted", "row 1 edited"]


def test_a_preview_that_may_not_look_any_longer_says_at_least(store):
    store.add(pair(f"fine {n}") for n in range(100))
    some, whole = (
        bulk.preview(store, ALL, Find("fine", "good"), seconds=0),
        bulk.preview(store, ALL, Find("fine", "x")),
    )
    assert not some.whole and 0 < some.rows < whole.rows
    assert whole.whole and whole.rows == bulk.replace_text(store, ALL, Find("fine", "good"))
