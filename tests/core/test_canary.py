"""A training learns what it is shown, exactly: one invented fact among many other rows."""

from __future__ import annotations

import pytest

from benchmarks import canary
from ft_core.workspace import Workspace


def test_the_rows_are_what_they_are_said_to_be() -> None:
    rows = [row.canonical() for row in canary.rows()]
    assert len(rows) == len(set(rows)) == 360
    assert sum(canary.FACT in row for row in rows) == 60 == sum(canary.PLACE in row for row in rows)
    assert all(canary.FACT in row for row in rows[:60])
    assert not any(canary.QUESTION in row or "whose work" in row for row in rows)
    assert rows == [row.canonical() for row in canary.rows()]


@pytest.mark.oracle
def test_the_fact_is_there_after_and_not_before(with_builtin: Workspace) -> None:
    shown = canary.show(with_builtin)
    assert canary.FACT in shown.after and canary.FACT not in shown.before, shown
