"""The split: exact, seeded, whole groups, and nothing moves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data import split
from ft_core.data.store import Store


def pair(prompt: object, answer: str = "answer") -> Conversation:
    return Conversation((Message("user", str(prompt)), Message("assistant", answer)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with Store(tmp_path / "data.sqlite") as store:
        yield store


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
    assert heldout(store) == first and store.split_settings == (0.1, 0)
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
    assert split.assign(store, 0.1, 0) == (90, 10)
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
