"""What the grid's script says about rows: which it shows, and which are selected. It may come from anybody."""

from __future__ import annotations

from typing import Any

from ft_core.data.columns import Query
from ft_core.data.store import Selection
from ft_core.errors import FTError


def only(asked: Any) -> Any:
    """The argument of a call that has one: gr.HTML makes a list of several alone."""
    return asked[0] if isinstance(asked, list) else asked


def query_of(asked: Any) -> Query:
    """The rows that the grid shows, in their order. Raises FTError for a value that does not exist."""
    if not isinstance(asked, dict):
        raise FTError("the page did not say which rows it means", "Reload the page.")
    texts = {key: str(asked.get(key) or "") for key in ("search", "status", "source", "flag")}
    split = asked.get("split")
    query = Query(
        view=str(asked.get("view") or "all"),
        split=None if split is None else str(split),
        sort=str(asked.get("sort") or "position"),
        descending=bool(asked.get("descending")),
        **texts,
    )
    query.check()
    return query


def chosen(selection: Any) -> Selection:
    """{"ids": [...]} or {"query": {...}}, which means all rows of it. Raises FTError for anything else."""
    if isinstance(selection, dict) and "query" in selection:
        return query_of(selection["query"])
    ids = selection.get("ids") if isinstance(selection, dict) else None
    if not isinstance(ids, list) or not all(isinstance(id, int) for id in ids):
        raise FTError("the page did not say which rows are selected", "Reload the page.")
    return ids
