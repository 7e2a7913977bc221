"""Search, sorting and filters: what the index and the array in memory say is what reading every row says."""

from __future__ import annotations

import random
import time
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ft_core.conversation import Conversation, Message
from ft_core.data import audited, bulk, conversations
from ft_core.data.columns import Query, Sort
from ft_core.data.flags import Flag
from ft_core.data.store import Row, Store
from ft_core.errors import FTError
from ft_core.render import Counts


def talk(*contents: str, origin: str = "") -> Conversation:
    return Conversation(
        tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(contents)), origin
    )


def flags_of(row: Row) -> list[str]:
    return [flag.name for flag in row.audit.flags] if row.audit else []


def audit(store: Store, dice: random.Random, rows: list[Row]) -> None:
    """Finds something or other in the rows, as the audit would."""
    with store.writing() as db:
        ids = [r.id for r in rows]
        numbers = dict(map(tuple, db.execute(f"SELECT id, conversation FROM rows WHERE id IN ({str(ids)[1:-1]})")))
        some = lambda names: tuple(Flag(name, f"{name}, in short") for name in names if dice.random() < 0.3)  # noqa: E731
        audited.keep_said(db, [audited.Said(n, 0, some(audited.FLAGS[:9]), "en") for n in numbers.values()])
        counted = [n for n in numbers.values() if dice.random() < 0.7]
        audited.keep_counted(db, [_counted(n, dice) for n in counted], dice.choice((500, 2000)))
        for id, n in numbers.items():
            for flag in some(audited.AMONG_OTHERS):
                place = audited.FLAGS.index(flag.name)
                db.execute("INSERT OR REPLACE INTO audited_rows VALUES (?, ?, ?, 1, 'why')", (id, place, n))
        audited.restamp(db, ids)


def _counted(conversation: int, dice: random.Random) -> audited.Counted:
    if dice.random() < 0.2:
        return audited.Counted(conversation, Counts(0, ()), "no")
    tokens = dice.randrange(3000)
    return audited.Counted(conversation, Counts(tokens, dice.choice(((), ((tokens // 2, tokens),)))))


def read(rows: list[Row], query: Query) -> list[int]:
    """The answer by reading every row."""
    keys = {
        "position": lambda r: r.id,
        "chars": lambda r: sum(len(m.content) for m in r.conversation.messages),
        "turns": lambda r: len(r.conversation.messages),
        "status": lambda r: ("candidate", "accepted", "rejected").index(r.status),
        "split": lambda r: ("", "train", "heldout").index(r.split),
        "source": lambda r: conversations.source(r.conversation.origin),
        "tokens": lambda r: r.audit.tokens if r.audit and r.audit.tokens is not None else -1,
        "score": lambda r: r.audit.score if r.audit else -1,
        "flags": lambda r: len(flags_of(r)),
    }
    views = {
        "all": lambda r: True,
        "review": lambda r: r.status == "candidate",
        "rejected": lambda r: r.status == "rejected",
        "train": lambda r: r.status != "rejected" and r.split == "train",
        "heldout": lambda r: r.status != "rejected" and r.split == "heldout",
    }
    needle = query.search.casefold()
    found = [
        r
        for r in rows
        if views[query.view](r)
        and (not query.status or r.status == query.status)
        and (query.split is None or r.split == query.split)
        and (not query.source or conversations.source(r.conversation.origin) == query.source)
        and (not query.flag or r.status != "rejected" and query.flag in {*flags_of(r), *["any"] * bool(flags_of(r))})
        and (not needle or any(needle in m.content.casefold() for m in r.conversation.messages))
    ]
    key = keys[query.sort]
    if query.descending and query.sort != "position":  # equal ones stay in the order in which they came
        return [r.id for r in sorted(sorted(found, key=lambda r: r.id), key=key, reverse=True)]
    return [r.id for r in sorted(found, key=key, reverse=query.descending)]


def test_every_query_is_what_reading_every_row_says(store):
    dice = random.Random(3)
    words = ["Größe", "naïve", "今日は", "x\0y", 'say "hi"', "back\\slash\n", "ÅNGSTRÖM", "42", "ﬁt", "user", "a"]
    origins = ["b.jsonl row 1", "a.csv row 2", "generated:20260101-x:r1", "example.jsonl, row 4", ""]
    store.add(
        talk(*(" ".join(dice.choices(words, k=3)) for _ in range(dice.choice((1, 2, 4)))), origin=dice.choice(origins))
        for _ in range(5000)
    )
    for step in range(84):
        some = dice.sample(range(1, 5001), 40)
        match step % 7:
            case 0:
                store.set_status(some, dice.choice(("candidate", "accepted", "rejected")))
            case 1:
                store.delete(some[:3])
            case 2:
                bulk.set_split(store, some, dice.choice(("train", "heldout", "")))
            case 3:
                living = store.rows(dice.randrange(4000), 1)[0]
                store.edit(living.id, talk("neu " + dice.choice(words)).messages, living.version)
            case 4:
                store.undo()
            case 5:
                store.index(seconds=dice.choice((0, 0.05)))
            case 6:
                audit(store, dice, store.rows(dice.randrange(4000), dice.choice((1, 300))))
        query = Query(
            dice.choice(("all", "all", "review", "rejected", "train", "heldout")),
            dice.choice(
                ("", "", "GRÖSSE", "ö", "今日", "は", "HI", "sh\n", "\0", "ngst", "FIT", "a", "neu", "42 42", "zz")
            ),
            dice.choice(("", "", "accepted", "rejected")),
            dice.choice((None, None, "", "train")),
            dice.choice(("", "", "b.jsonl", "generated:20260101-x", "no such")),
            dice.choice(get_args(Sort)),
            dice.random() < 0.5,
            dice.choice(("", "", "any", *audited.FLAGS)),
        )
        rows = store.rows(limit=10**6)
        expected = read(rows, query)
        for offset in (0, len(expected) // 2, len(expected)):
            page = store.page(query, offset, 20)
            assert ([r.id for r in page.rows], page.total) == (expected[offset : offset + 20], len(expected)), query
        kept = [r for r in rows if r.status != "rejected"]
        assert store.flags() == {name: sum(name in flags_of(r) for r in kept) for name in audited.FLAGS}
    assert store.count(search="今日") > 100 and store.flags()["leak"] > 100


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(max_size=12), min_size=1, max_size=8), st.text(min_size=1, max_size=5), st.booleans())
def test_any_part_of_any_text_is_found(tmp_path_factory, texts, needle, indexed):
    texts = [t for t in texts if t.isascii() or not any("\ud800" <= c <= "\udfff" for c in t)]
    with Store(tmp_path_factory.mktemp("s") / "data.sqlite") as store:
        store.add(talk(text, "x" + text[1:]) for text in texts)
        if indexed:
            assert store.index() == 0
        for part in (needle, *(t[a : a + n] for t in texts for a, n in ((0, 1), (1, 2), (2, 3), (1, 7)))):
            if part:
                assert store.page(Query(search=part)).total == len(read(store.rows(limit=99), Query(search=part))), (
                    part
                )


def test_the_index_follows_and_others_write_meanwhile(tmp_path):
    with Store(tmp_path / "data.sqlite") as store, Store(tmp_path / "data.sqlite") as other:
        store.add(talk(f"number {n}") for n in range(5000))
        assert store.index(seconds=0) == 5000
        assert store.count(search="number 4321") == 1
        assert store.index(seconds=60) == 0 == other.index(seconds=0)
        other.edit(7, talk("changed").messages, 1)
        assert [r.id for r in store.page(Query(search="changed")).rows] == [7]
        assert store.index(seconds=0) == 0  # a search brings in what little is new
        store.undo()
        assert other.count(search="changed") == 0 and other.count(search="number 6") == 111


def test_a_search_does_not_wait_for_a_writer(store):
    store.add(talk(f"number {n}") for n in range(500))
    with store.writing():
        start = time.monotonic()
        assert store.page(Query(search="number 77")).total == 1 and store.index(seconds=0.1) == 500
        assert time.monotonic() - start < 10
    assert store.index() == 0 and store.page(Query(search="number 77")).total == 1


def test_a_store_that_takes_anothers_place_is_not_taken_for_it(tmp_path):
    path = tmp_path / "data.sqlite"
    for text in ("first", "second"):
        with Store(path) as store:
            store.add([talk(text)])
            assert (store.count(search="first"), store.count(search="second")) == (text == "first", text == "second")
        path.unlink()


def test_sources_are_files_and_generations(store):
    store.add([talk("a", origin="x, y.jsonl row 12"), talk("b", origin="generated:20260101-000000-1:seed 3:4")])
    store.add([talk("c", origin="x, y.jsonl row 13"), talk("d"), talk("e", origin="roastery.jsonl, row 3")])
    store.delete([3])
    assert store.sources() == {"": 1, "generated:20260101-000000-1": 1, "roastery.jsonl": 1, "x, y.jsonl": 1}


@pytest.mark.parametrize(
    "query",
    [Query("none"), Query(status="fine"), Query(split="middle"), Query(sort="weight"), Query(flag="red")],
    ids=str,
)
def test_what_cannot_be_asked_is_said(store, query):
    with pytest.raises(FTError):
        store.page(query)
    assert store.page(Query(search="x", sort="source")) == store.page(Query(sort="chars"))
