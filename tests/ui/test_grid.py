"""What the grid takes from its scripts and gives to them, without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data import audited
from ft_core.data.columns import Query
from ft_core.data.store import Store
from ft_core.errors import FTError
from ui import grid
from ui.selection import chosen, query_of


def test_rows_are_asked_for_in_words_that_exist() -> None:
    assert query_of({}) == Query()
    asked = {"view": "review", "search": "x", "split": "", "flag": "secret", "sort": "tokens", "descending": True}
    assert query_of(asked) == Query("review", "x", split="", flag="secret", sort="tokens", descending=True)
    for wrong in (
        {"view": "rows; DROP"},
        {"sort": "1"},
        {"split": "x"},
        {"flag": "x"},
        {"status": "x"},
        [],
        "all",
        None,
    ):
        with pytest.raises(FTError):
            query_of(wrong)


def test_a_selection_is_ids_or_all_that_a_query_finds() -> None:
    assert chosen({"ids": [3, 1]}) == [3, 1]
    assert chosen({"query": {"view": "rejected"}}) == Query("rejected")
    for wrong in ({}, {"ids": ["1"]}, {"ids": 1}, [1], None, {"query": None}, {"query": {"view": "none"}}):
        with pytest.raises(FTError):
            chosen(wrong)


def test_long_texts_are_cut_for_the_grid_and_named(tmp_path: Path) -> None:
    with Store(tmp_path / "data.sqlite") as store:
        store.add([Conversation((Message("user", "?"), Message("assistant", "a" * 10_000)), "shop.csv row 7")])
        row = store.get(1)
        short = grid.shown(row)
        assert (short["cut"], len(short["response"]) < 1000) == (["response"], True)
        assert (short["prompt"], short["system"], short["source"], short["turns"]) == ("?", "", "shop.csv", 2)
        assert (short["tokens"], short["score"], short["flags"]) == ("", "", [])  # nobody has looked at it yet
        whole = grid.shown(row, limit=None)
        assert (whole["cut"], len(whole["response"])) == ([], 10_000)


def test_the_state_is_another_after_every_change(tmp_path: Path) -> None:
    with Store(tmp_path / "data.sqlite") as store:
        store.add([Conversation((Message("user", str(n)),)) for n in range(2)])
        seen = [grid.state(store)["stamp"]]
        for change in (
            lambda: store.edit(1, [Message("user", "one")], 1),
            lambda: store.edit(2, [Message("user", "two")], 1),
            store.undo,
            store.undo,
            store.redo,
            lambda: store.set_system("Be brief."),
        ):
            change()
            seen.append(grid.state(store)["stamp"])
            assert grid.state(store)["stamp"] == seen[-1]
        assert len({*seen}) == len(seen)


def test_every_flag_has_words_for_a_cell() -> None:
    assert set(grid.FLAGS) == set(audited.FLAGS)


def test_scripts_of_one_scope_declare_no_name_twice() -> None:
    """The later function would take the place of the earlier one in silence."""
    scripts = [(grid._STATIC / script).read_text(encoding="utf-8") for script in grid._SCRIPTS]
    names = [
        name
        for script in scripts
        if "\n(() => {\n" not in script  # it keeps its names to itself
        for line in script.splitlines()
        if re.match(r"(async )?function |const |let ", line)
        for name in re.findall(r"^(?:async )?(?:function|const|let) (\w+)|, (\w+) = ", line)
    ]
    names = [first or further for first, further in names]
    assert len(names) > 100 and {n for n in names if names.count(n) > 1} == set()
