"""What is planted in conversations of real length is found, all of it and little else; and what becomes of it."""

from __future__ import annotations

import random
import time

import pytest

from benchmarks.audit import make, sentences
from ft_core import jobs
from ft_core.conversation import Conversation, Message
from ft_core.data import audit, audit_job, audited, quality
from ft_core.data.columns import Query
from ft_core.data.store import Row, Store
from ft_core.errors import FTError
from ft_core.events import State
from ft_core.recipe import Recipe

PLANTED = {"near_duplicate": 6, "personal_data": 4, "empty": 3, "cut": 3, "leak": 2}
LIMIT = 2048


def pair(prompt: str, answer: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", answer)))


def different(count: int, seed: int = 0) -> list[Conversation]:
    """Conversations that have nothing in common but their letters."""
    rng = random.Random(seed)
    word = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))  # noqa: E731
    return [pair(" ".join(word() for _ in range(8)), " ".join(word() for _ in range(12))) for _ in range(count)]


def rows(store: Store, flag: str) -> set[int]:
    return {row.id for row in store.page(Query(flag=flag), 0, 10**6).rows}


def names(row: Row) -> list[str]:
    return [flag.name for flag in row.audit.flags]


def fill(store: Store, count: int = 220) -> dict[str, set[int]]:
    """Ids of the planted rows by flag."""
    made = make(count, 2000, PLANTED, LIMIT, sentences(5000))
    store.add(made.rows)
    store.set_split(((i + 1, "heldout" if i in made.heldout else "train") for i in range(count)), 0.1, 0)
    return {flag: {place + 1 for place in places} for flag, places in made.planted.items()}


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_planted_is_found(store, renderer, workers):
    planted = fill(store)
    told: list[tuple[int, int, str]] = []
    audit.bring_up(store, renderer, LIMIT, lambda *step: told.append(step), workers)
    for flag, ids in planted.items():
        assert rows(store, flag) == ids, flag
    assert store.flags()["duplicate"] == len(planted["leak"])  # of each pair the later one
    others = {f: n for f, n in store.flags().items() if f not in PLANTED and f != "duplicate"}
    assert sum(others.values()) <= 4, others
    assert told[0][:2] == (0, 220)
    assert [*dict.fromkeys(what for *_, what in told)] == ["looks at rows", "compares them with each other"]
    assert all(done <= total for done, total, _ in told)
    for row in store.rows(limit=1000):
        example = renderer.example(row.conversation)
        assert row.audit.tokens == len(example.ids)
        cut = renderer.example(row.conversation, LIMIT)
        assert (row.audit.learnt, row.audit.lost) == (cut.learnt, cut.cut_learnt)
        assert all(flag.reason for flag in row.audit.flags)
    found = quality.check(store, renderer, LIMIT, look=0)
    assert {name: found.flags[name] for name in PLANTED} == PLANTED and found.unseen == 0


def test_stopped_in_the_middle_it_keeps_what_it_has_and_goes_on(store, renderer):
    fill(store)

    class Enough(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if done:
            raise Enough

    with pytest.raises(Enough):
        audit.bring_up(store, renderer, LIMIT, stop, workers=0)
    left = audit.lacking(store, renderer)
    assert 0 < left.said < 220 and left.said == left.counted
    told = []
    audit.bring_up(store, renderer, LIMIT, lambda *step: told.append(step), workers=0)
    assert told[0][1] == left.said and audit.lacking(store, renderer) == audit.Lacking(0, 0)
    told.clear()
    audit.bring_up(store, renderer, LIMIT, lambda *step: told.append(step))
    assert told == []


def test_an_edit_ends_what_was_found_of_that_row_alone_and_undo_brings_it_back(store, renderer):
    store.add([*different(30), pair("Where?", "mail ann@posteo.de, please"), *different(1), pair("x", "")])
    audit.bring_up(store, renderer)
    assert names(store.get(31)) == ["personal_data"] and names(store.get(32)) == ["duplicate"]
    before = store.rows(limit=100)
    store.edit(32, pair("something else altogether", "said for the first time here").messages, 1)
    assert store.get(32).audit is None and [r.audit for r in store.rows(0, 31)] == [r.audit for r in before[:31]]
    audit.bring_up(store, renderer)
    assert names(store.get(32)) == []
    store.undo()
    assert store.get(32).audit.tokens == before[31].audit.tokens  # it was looked at before
    audit.bring_up(store, renderer)
    assert [r.audit for r in store.rows(limit=100)] == [r.audit for r in before]


def test_what_rows_are_among_each_other_follows_the_rows(store):
    one, two = different(2)
    near = pair(one.messages[0].content, one.messages[1].content + "!")
    store.add([one, two, one, near, *different(20, seed=1)])
    audit.bring_up(store)
    assert (rows(store, "duplicate"), rows(store, "near_duplicate")) == ({3}, {4})
    assert audit.groups(store, "near_duplicate").groups == ((1, 4),)
    store.set_status([1], "rejected")
    audit.bring_up(store)
    assert (rows(store, "duplicate"), rows(store, "near_duplicate")) == (set(), {4})
    assert audit.groups(store, "near_duplicate") == audit.Groups(((3, 4),), 1)
    store.set_split([(3, "train"), (4, "heldout")], 0.1, 0)
    audit.settle(store)
    assert rows(store, "leak") == {4} and "row 3" in store.get(4).audit.flags[-1].reason
    store.set_status([1], "accepted")
    store.set_status([3], "rejected")  # nobody has looked since
    assert audit.resolve(store, "near_duplicate", "ada") == 1 and store.log()[0].who == "ada"
    assert [r.status for r in store.rows(0, 4)] == ["accepted", "accepted", "rejected", "rejected"]
    store.undo()
    assert store.get(4).status == "accepted"


def test_groups_come_in_pages(store):
    some = different(12)
    store.add(some * 3)
    audit.bring_up(store)
    found = audit.groups(store, "duplicate", offset=10, limit=50)
    assert found == audit.Groups(((11, 23, 35), (12, 24, 36)), 12)
    assert audit.resolve(store, "duplicate") == 24 and audit.groups(store, "duplicate").total == 0
    with pytest.raises(FTError, match="likeness"):
        audit.groups(store, "leak")


def test_a_row_in_another_language_and_a_set_of_two(store):
    english = [pair(f"{c.messages[0].content}", f"The harbour is open on day {i}, and the ships come in early.")
               for i, c in enumerate(different(40))]  # fmt: skip
    german = pair("Wann?", "Der Hafen ist heute geöffnet, und die Schiffe kommen schon früh am Morgen herein.")
    store.add([*english, german])
    audit.bring_up(store)
    assert rows(store, "language") == {41} and "“de”" in store.get(41).audit.flags[0].reason
    store.add(german for _ in range(10))
    audit.bring_up(store)
    assert rows(store, "language") == set()


def test_tokens_follow_the_model_and_the_system_prompt_and_flags_the_limit(store, renderer):
    store.add(different(25))
    audit.bring_up(store, renderer, 4096)
    before = store.get(1).audit
    store.set_system("You are the harbour master of a small town in the north.")
    assert audit.lacking(store, renderer) == audit.Lacking(0, 25)
    audit.bring_up(store, renderer, 4096)
    after = store.get(1).audit
    assert after.tokens != before.tokens and after.learnt == before.learnt
    audit.bring_up(store, renderer, after.tokens - 3)
    now = store.get(1).audit
    assert (now.lost, now.learnt, names(store.get(1))) == (3, after.learnt - 3, ["cut"])
    audit.bring_up(store, renderer, 4096)
    assert store.get(1).audit == after


def test_rows_can_be_written_beside_it(store, renderer):
    fill(store, 60)
    with Store(store.path) as other:

        def write(done: int, total: int, what: str) -> None:
            other.add(different(1, seed=done))
            other.delete([done + 1])

        audit.bring_up(store, renderer, LIMIT, write, workers=0)
        audit.bring_up(store, renderer, LIMIT, workers=0)
        assert audit.lacking(other, renderer) == audit.Lacking(0, 0) and audit.settled(other)


def test_as_a_job_it_can_be_watched_and_stopped(workspace, builtin):
    project = workspace.project("harbour", create=True)
    with Store(project.data) as store:
        planted = fill(store)
        job = audit_job.start(project, Recipe(), builtin)
        assert audit_job.start(project, Recipe(), builtin).id == job.id  # one at a time
        seen = jobs.wait(job)
        assert (seen.kind, seen.state, seen.error) == ("audit", State.FINISHED, "")
        assert seen.result["flags"]["near_duplicate"] == len(planted["near_duplicate"])
        assert seen.result["diversity"]["texts"] and rows(store, "empty") == planted["empty"]
        store.add(make(400, 3000, {}, LIMIT, sentences(5000), seed=1).rows)
        job = audit_job.start(project, Recipe(), builtin)
        while not jobs.view(job).step and not jobs.view(job).state.over:
            time.sleep(0.02)
        jobs.stop(job)
        seen = jobs.wait(job)
        assert seen.state in (State.STOPPED, State.FINISHED)  # a fast machine may be done by then
        assert audit.lacking(store, None).said < 400


def test_all_flags_have_a_bit_and_a_weight():
    from ft_core.data.flags import TEXT_FLAGS, WEIGHTS

    assert set(TEXT_FLAGS) | set(audited.OF_TOKENS) | set(audited.AMONG_OTHERS) == set(audited.FLAGS) == set(WEIGHTS)
    assert all(audited.names(audited.mask([name])) == (name,) for name in audited.FLAGS)
