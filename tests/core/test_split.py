"""The split: exact, seeded, whole groups, and nothing moves."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data import duplicates, split
from ft_core.data.conversations import source
from ft_core.data.store import Store
from ft_core.errors import FTError


def pair(prompt: object, answer: str = "answer", origin: str = "") -> Conversation:
    return Conversation((Message("user", str(prompt)), Message("assistant", answer)), origin)


def sides(store: Store) -> dict[int, str]:
    return {id: side for id, _, side in store.conversations()}


def heldout(store: Store) -> set[int]:
    return {id for id, side in sides(store).items() if side == "heldout"}


def test_503_rows_and_a_tenth_are_50(store):
    store.add(pair(i) for i in range(503))
    assert split.assign(store, 0.1, 0) == (453, 50)
    assert (store.count("train"), store.count("heldout")) == (453, 50)
    assert store.undo() == "split of 503 rows" and store.count("heldout") == 0


def test_the_seed_decides_and_the_order_does_not(tmp_path):
    found = []
    for n, (seed, rows) in enumerate([(0, range(200)), (0, reversed(range(200))), (1, range(200))]):
        with Store(tmp_path / f"{n}.sqlite") as store:
            store.add(pair(i) for i in rows)
            split.assign(store, 0.1, seed)
            found.append({r.conversation.messages[0].content for r in store.rows(view="heldout")})
    assert found[0] == found[1] != found[2]
    assert len(found[0] & found[2]) < 10


def test_new_rows_never_move_old_ones(store):
    store.add(pair(i) for i in range(100))
    split.assign(store, 0.1, 0)
    before = sides(store)
    store.add(pair(i) for i in range(100, 300))
    assert split.assign(store, 0.1, 0) == (270, 30)
    after = sides(store)
    assert {id: after[id] for id in before} == before
    assert split.assign(store, 0.1, 0) == (270, 30) and len(store.log()) == 4


def test_another_share_or_seed_is_another_split(store):
    store.add(pair(i) for i in range(100))
    assert split.assign(store, 0.1, 0) == (90, 10)
    first = heldout(store)
    assert split.assign(store, 0.3, 0) == (70, 30)
    assert first < heldout(store)
    assert split.assign(store, 0.1, 5) == (90, 10) and heldout(store) != first
    store.undo(), store.undo()
    assert heldout(store) == first and store.split_settings == (0.1, 0, "equal")
    assert split.assign(store, 0.0, 0) == (100, 0)


def test_equal_rows_stay_together(store):
    store.add(pair(i % 200, "A  a\n" if i < 200 else "a A") for i in range(600))
    train, held = split.assign(store, 0.1, 0)
    assert (train, held) == (540, 60)
    by_prompt: dict[str, set[str]] = {}
    for _, conversation, side in store.conversations():
        by_prompt.setdefault(conversation.messages[0].content, set()).add(side)
    assert all(len(found) == 1 for found in by_prompt.values())


def test_a_group_too_large_for_the_test_is_trained_on(store):
    store.add([*(pair("same") for _ in range(4)), *(pair(i) for i in range(96))])
    for seed in range(8):
        assert split.assign(store, 0.1, seed) == (90, 10)
        assert {sides(store)[id] for id in range(1, 5)} == {"train"}
    store.add(pair("all the same") for _ in range(1000))
    assert split.assign(store, 0.1, 0)[0] >= 1000


def test_a_new_row_follows_its_equal(store):
    store.add(pair(i) for i in range(100))
    split.assign(store, 0.1, 0)
    first = min(heldout(store))
    store.add([store.get(first).conversation])
    split.assign(store, 0.1, 0)
    assert sides(store)[101] == "heldout"


def test_rejected_rows_are_not_counted(store):
    store.add(pair(i) for i in range(120))
    store.set_status(range(1, 21), "rejected")
    assert split.assign(store, 0.1, 0) == (90, 10)
    store.set_status(range(1, 21), "accepted")
    assert split.assign(store, 0.1, 0) == (108, 12)


@pytest.mark.parametrize(
    "rows, share, expected", [(0, 0.1, (0, 0)), (1, 0.5, (1, 0)), (3, 0.1, (2, 1)), (25, 0.1, (22, 3))]
)
def test_few_rows(store, rows, share, expected):
    store.add(pair(i) for i in range(rows))
    assert split.assign(store, share, 0) == expected


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 30), max_size=120), st.floats(0, 0.5), st.integers(0, 2**31 - 1))
def test_never_more_than_the_share_and_no_leak(tmp_path_factory, prompts, share, seed):
    with Store(tmp_path_factory.mktemp("s") / "data.sqlite") as store:
        store.add(pair(p) for p in prompts)
        train, held = split.assign(store, share, seed)
        assert train + held == len(prompts) and held <= max(int(share * len(prompts) + 0.5), 1)
        found = {"train": set(), "heldout": set()}
        for _, conversation, side in store.conversations():
            found[side].add(conversation)
        assert not found["train"] & found["heldout"]


# --- by source, and by what belongs together


def by_source(store: Store, view: str) -> Counter[str]:
    return Counter(source(row.conversation.origin) for row in store.rows(0, 10_000, view))


def test_each_source_gives_its_share(store):
    store.add(pair(f"{name} {i}", origin=f"{name} row {i}") for name, n in SOURCES.items() for i in range(n))
    assert split.assign(store, 0.1, 3) == (639, 71)
    assert by_source(store, "heldout") == {"a.csv": 50, "b.jsonl": 20, "c.csv": 1}
    store.add(pair(f"new {i}", origin=f"new.csv row {i}") for i in range(300))
    before = sides(store)
    split.assign(store, 0.1, 3)
    assert by_source(store, "heldout") == {"a.csv": 50, "b.jsonl": 20, "c.csv": 1, "new.csv": 30}
    assert {id: side for id, side in sides(store).items() if before[id]} == {
        id: side for id, side in before.items() if side
    }


SOURCES = {"a.csv": 500, "b.jsonl": 200, "c.csv": 10}


def test_sources_whose_groups_are_too_large_are_made_up_for_by_others(store):
    store.add(pair(i // 10, origin=f"twins.csv row {i}") for i in range(50))
    store.add(pair(i, "x", origin=f"single.csv row {i}") for i in range(50))
    assert split.assign(store, 0.1, 0) == (90, 10)
    assert by_source(store, "heldout") == {"single.csv": 10}


def test_whole_sources_are_held_out(store):
    store.add(pair(f"{n} {i}", origin=f"{n}.csv row {i}") for n in range(10) for i in range(20 + n))
    train, held = split.assign(store, 0.2, 1, group="source")
    assert 20 <= held <= 49 and not set(by_source(store, "train")) & set(by_source(store, "heldout"))
    other = {id: side for id, side in sides(store).items()}
    assert split.assign(store, 0.2, 1, group="source") == (train, held) and sides(store) == other


def test_no_group_that_is_small_enough_is_said(store):
    store.add(pair(f"{n} {i}", origin=f"{n}.csv row {i}") for n in range(2) for i in range(50))
    with pytest.raises(FTError, match="nothing can be held out by source: 10 rows are wanted") as refused:
        split.assign(store, 0.1, 0, group="source")
    assert refused.value.hint and set(sides(store).values()) == {""} and store.split_settings is None
    assert split.assign(store, 0.0, 0, group="source") == (100, 0)


def test_rows_with_the_same_question_stay_together(store):
    store.add(pair(f"Question {i % 100}" if i < 100 else f" question\n{i % 100}", f"answer {i}") for i in range(300))
    assert split.assign(store, 0.1, 0, group="question") == (270, 30)
    held = {" ".join(r.conversation.messages[0].content.lower().split()) for r in store.rows(0, 500, "heldout")}
    trained = {" ".join(r.conversation.messages[0].content.lower().split()) for r in store.rows(0, 500, "train")}
    assert len(held) == 10 and not held & trained
    split.assign(store, 0.1, 0)
    held = {" ".join(r.conversation.messages[0].content.lower().split()) for r in store.rows(0, 500, "heldout")}
    assert len(held) > 10  # grouped by equality alone they are torn apart


def test_near_duplicates_stay_together(store):
    long = "The parcel from Oslo takes four days by train, and the driver rings twice before he leaves the house."
    store.add(pair(f"{n} {'abcdefghij'[n % 10] * 40} {long}", f"{n} {i}") for n in range(60) for i in range(2))
    store.add(pair(f"{i * 7919} unlike", f"{i * i} other {i * 31}") for i in range(120))
    train, held = split.assign(store, 0.3, 0, group="near")
    assert train + held == 240
    clusters = {id: n for n, ids in enumerate(duplicates.near(plain(store))) for id in ids}
    assert len(clusters) > 100
    found: dict[int, set[str]] = {}
    for id, side in sides(store).items():
        if id in clusters:
            found.setdefault(clusters[id], set()).add(side)
    assert all(len(of) == 1 for of in found.values())


def plain(store: Store) -> list[tuple[int, str]]:
    return [(id, "\n".join(m.content for m in c.messages)) for id, c, _ in store.conversations()]


def test_what_the_caller_says_belongs_together_does(store):
    """Chains too: 1 with 2 by the caller, 2 with 3 because they are equal."""
    store.add([pair("a"), pair("b"), pair("B "), *(pair(i) for i in range(97))])
    for seed in range(30):
        split.assign(store, 0.3, seed, group="question", together={1: 7, 2: 7, 50: 8, 60: 8, 70: 8})
        placed = sides(store)
        assert placed[1] == placed[2] == placed[3] and placed[50] == placed[60] == placed[70]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(-1, 8)), min_size=1, max_size=100),
    st.floats(0, 0.5),
    st.integers(0, 1000),
)
def test_groups_are_whole_shares_are_kept_and_nothing_moves(tmp_path_factory, rows, share, seed):
    half = len(rows) // 2
    with Store(tmp_path_factory.mktemp("s") / "data.sqlite") as store:
        together = {n: label for n, (_, _, label) in enumerate(rows, 1) if label >= 0}
        place = partial(split.assign, store, share, seed, together=together)
        store.add(pair(prompt, origin=f"{file}.csv row 1") for prompt, file, _ in rows[:half])
        place()
        before = sides(store)
        store.add(pair(prompt, origin=f"{file}.csv row 1") for prompt, file, _ in rows[half:])
        train, held = place()
        after = sides(store)
        assert (train + held, held) == (len(rows), sum(side == "heldout" for side in after.values()))
        assert before.items() <= after.items()
        if not half:
            assert held <= max(int(share * len(rows) + 0.5), 1)
