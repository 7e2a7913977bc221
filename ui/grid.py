"""The grid: a component of ours over the store. The script (static/grid.js) asks for pages of rows and sends edits.

gr.HTML calls these functions with all arguments as one list, from anybody who asks; so each takes the project's name
from that list and the owner from the request, and opens nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core.data.store import Row, Store
from ft_core.errors import FTError

from .drawer import drawer
from .errors import answered
from .frame import Recipes
from .panel import draw
from .session import House

_STATIC = Path(__file__).parent / "static"
_SCRIPTS = ("grid.js", "drawer.js")
"""In this order, in one scope: gr.HTML takes one script."""
_MOST = 200
"""Rows that one call may ask for."""
VIEWS = ("all", "review", "heldout", "train", "rejected")


def grid(house: House, recipes: Recipes) -> gr.HTML:
    """The component; its value is {"project", "stamp"}, its event `changed`."""

    def store_of(project: str, request: gr.Request) -> Store:
        return Store(house.project(request, str(project)).data)

    @answered
    def rows(asked: list, request: gr.Request) -> dict[str, Any]:
        project, view, search, offset, limit = asked
        if view not in VIEWS:
            raise FTError(f"there is no view {view!r}")
        with store_of(project, request) as store:
            found = store.rows(max(0, int(offset)), min(int(limit), _MOST), view, str(search))
            return {
                "rows": [shown(row) for row in found],
                "total": store.count(view, str(search)),
                "counts": {name: store.count(name) for name in VIEWS},
                "undo": store.can_undo,
                "redo": store.can_redo,
            }

    @answered
    def edit(asked: list, request: gr.Request) -> dict[str, Any]:
        project, id, version, changes = asked
        with store_of(project, request) as store:
            messages = list(store.get(int(id)).conversation.messages)
            for at, text in changes.items():
                messages[int(at)] = replace(messages[int(at)], content=str(text))
            row = store.edit(int(id), tuple(messages), int(version))
        return {"row": shown(row), "said": f"Row {row.id} saved"}

    @answered
    def status(asked: list, request: gr.Request) -> dict[str, Any]:
        project, ids, to = asked
        with store_of(project, request) as store:
            store.set_status([int(id) for id in ids], str(to))
        return {"said": f"{len(ids)} row{'s' if len(ids) > 1 else ''} {to}"}

    @answered
    def remove(asked: list, request: gr.Request) -> dict[str, Any]:
        project, ids = asked
        with store_of(project, request) as store:
            store.delete([int(id) for id in ids])
        return {"said": "Deleted; Undo brings it back"}

    @answered
    def undo(asked: list, request: gr.Request) -> dict[str, Any]:
        with store_of(_only(asked), request) as store:
            what = store.undo()
        return {"said": f"Undone: {what}" if what else "Nothing to undo"}

    @answered
    def redo(asked: list, request: gr.Request) -> dict[str, Any]:
        with store_of(_only(asked), request) as store:
            what = store.redo()
        return {"said": f"Done again: {what}" if what else "Nothing to do again"}

    return gr.HTML(
        {"project": "", "stamp": ""},
        html_template=draw("grid"),
        js_on_load="\n".join((_STATIC / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        apply_default_css=False,
        server_functions=[rows, edit, status, remove, undo, redo, *drawer(house, recipes)],
        elem_id="grid",
    )


def shown(row: Row) -> dict[str, Any]:
    """A row as the grid's script takes it: the person's first question and the last answer, and where they stand."""
    messages = row.conversation.messages
    asks = next((i for i, m in enumerate(messages) if m.role == "user"), -1)
    answers = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "assistant"), -1)
    return {
        "id": row.id,
        "version": row.version,
        "status": row.status,
        "split": row.split,
        "turns": sum(m.role != "system" for m in messages),
        "prompt": messages[asks].content if asks >= 0 else "",
        "prompt_at": asks,
        "answer": messages[answers].content if answers >= 0 else "",
        "answer_at": answers,
    }


def _only(asked: Any) -> str:
    return asked[0] if isinstance(asked, list) else asked
