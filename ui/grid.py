"""The grid: a component of ours over the store. Its scripts ask for pages of rows and send edits.

gr.HTML calls these functions with all arguments as one list, from anybody who asks; so each takes the project's name
from that list and the owner from the request, and opens nothing else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.data import cells, columns, conversations
from ft_core.data.columns import Query
from ft_core.data.store import Row, Store
from ft_core.errors import FTError

from .dialogs import dialogs
from .drawer import drawer
from .errors import answered
from .frame import Recipes
from .grid_changes import changes
from .panel import draw
from .selection import chosen, only, query_of
from .session import House

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("grid.js", "cells.js", "choose.js", "filters.js", "drawer.js", "turns.js", "dialogs.js")
"""In this order, in one scope: gr.HTML takes one script."""
_MOST = 200
"""Rows that one call may ask for."""
_MOST_IDS = 20_000
"""Rows that can be selected one by one; more are selected as a query."""
_MOST_COPIED = 5_000
"""Rows that go to the clipboard at once."""
_SHOWN = 400
"""Characters of a text that a cell gets: more than any shows. A cell that is edited gets all of it."""
FLAGS = {
    "empty": "empty",
    "too_short": "too short",
    "too_long": "too long",
    "repetitive": "repetitive",
    "misspelt": "misspelt",
    "cut_off": "breaks off",
    "refusal": "refusal",
    "personal_data": "personal data",
    "secret": "secret",
    "template": "template refuses it",
    "nothing_learnt": "nothing learnt",
    "cut": "cut at the limit",
    "language": "other language",
    "duplicate": "duplicate",
    "near_duplicate": "near duplicate",
    "similar": "similar",
    "leak": "leak",
}
"""The flags of the audit in words that fit a cell."""


def grid(house: House, recipes: Recipes) -> gr.HTML:
    """The component; its value is {"project", "stamp"}, its event `changed`."""
    return gr.HTML(
        {"project": "", "stamp": ""},
        html_template=draw("grid"),
        js_on_load="\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        apply_default_css=False,
        server_functions=[*_reads(house), *changes(house, shown, state), *drawer(house, recipes), *dialogs(house)],
        elem_id="grid",
    )


def _reads(house: House) -> list[Callable]:
    def store_of(name: Any, request: gr.Request) -> Store:
        return Store(house.project(request, str(name)).data)

    @answered
    def rows(asked: list, request: gr.Request) -> dict[str, Any]:
        """A page; and where the project stands, unless the script knows it, by its stamp."""
        name, query, offset, limit, known = asked
        with store_of(name, request) as store:
            now = store.stamp  # before the rows: should they change in between, the script asks again
            page = store.page(query_of(query), max(0, int(offset)), min(int(limit), _MOST))
            answer = {"rows": [shown(row) for row in page.rows], "total": page.total}
            return answer if now == known else {**answer, "state": {**state(store), "stamp": now}}

    @answered
    def facets(asked: list, request: gr.Request) -> dict[str, Any]:
        """What can be filtered by, with how many rows have it."""
        with store_of(only(asked), request) as store:
            counts = store.counts()
            flags = _flag_counts(store)
            return {
                "flagged": flags.pop("any", 0),
                "flag": [[flag, FLAGS.get(flag, flag.replace("_", " ")), n] for flag, n in flags.items() if n],
                "source": [[source, source, n] for source, n in store.sources().items() if source],
                "split": [[split, _SPLITS[split], n] for split, n in _split_counts(store).items() if n],
                "status": [
                    ["accepted", "accepted", counts.rows - counts.to_review - counts.rejected],
                    ["candidate", "to review", counts.to_review],
                    ["rejected", "rejected", counts.rejected],
                ],
            }

    @answered
    def whole(asked: list, request: gr.Request) -> dict[str, Any]:
        """A row with all of its texts."""
        name, id = asked
        with store_of(name, request) as store:
            return {"row": shown(store.get(int(id)), limit=None)}

    @answered
    def ids(asked: list, request: gr.Request) -> dict[str, Any]:
        """Of the rows from one place of a query's answer up to another, both included; in no view of their texts."""
        name, query, first, last = asked
        if int(last) - int(first) >= _MOST_IDS:
            raise FTError(f"one by one, at most {_MOST_IDS:,} rows can be selected", "Ctrl-A selects all of them.")
        with store_of(name, request) as store, store.reading() as db:
            return {"ids": store.ids(db, query_of(query))[max(0, int(first)) : int(last) + 1]}

    @answered
    def copy(asked: list, request: gr.Request) -> dict[str, Any]:
        """Prompt and response of the selected rows as spreadsheets take them from the clipboard."""
        name, selection = asked
        with store_of(name, request) as store, store.reading() as db:
            wanted = store.ids(db, chosen(selection))
            if len(wanted) > _MOST_COPIED:
                raise FTError(
                    f"at most {_MOST_COPIED:,} rows fit the clipboard", "Export writes any number to a file."
                )
            found = store.rows_by_id(db, wanted)
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerows([cells.read(row.conversation)[column] for column in ("prompt", "response")] for row in found)
        return {"text": text.getvalue(), "said": f"{len(found):,} row{'' if len(found) == 1 else 's'} copied"}

    return [rows, facets, whole, ids, copy]


def state(store: Store) -> dict[str, Any]:
    """Where a project stands, beside its rows."""
    counts = store.counts()
    views = {"all": counts.rows, "review": counts.to_review, "heldout": counts.heldout, "train": counts.train}
    return {
        "stamp": store.stamp,
        "counts": {**views, "rejected": counts.rejected},
        "undo": store.can_undo,
        "redo": store.can_redo,
    }


def shown(row: Row, limit: int | None = _SHOWN) -> dict[str, Any]:
    """A row as the grid's script takes it; texts longer than `limit` are cut, and named in `cut`."""
    texts = cells.read(row.conversation)
    audit = row.audit
    return {
        "id": row.id,
        "version": row.version,
        "status": row.status,
        "split": row.split,
        "turns": sum(m.role != "system" for m in row.conversation.messages),
        "source": conversations.source(row.conversation.origin),
        "tokens": audit.tokens if audit and audit.tokens is not None else "",
        "score": audit.score if audit else "",
        "flags": [[FLAGS.get(f.name, f.name.replace("_", " ")), f.reason] for f in audit.flags] if audit else [],
        **{column: text[:limit] for column, text in texts.items()},
        "cut": [column for column, text in texts.items() if limit is not None and len(text) > limit],
    }


_SPLITS = {"train": "train", "heldout": "held out", "": "in neither"}


def _split_counts(store: Store) -> dict[str, int]:
    return {split: store.page(replace(Query(), split=split), 0, 0).total for split in columns.SPLITS}


def _flag_counts(store: Store) -> dict[str, int]:
    """By name, and under 'any' how many rows have one."""
    return {**store.flags(), "any": store.page(Query(flag="any"), 0, 0).total}
