"""What the grid changes: each call is one operation of the store, and says what it did and how things stand then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ft_core.data import bulk, cells
from ft_core.data.bulk import Edit
from ft_core.data.operations import counted
from ft_core.data.store import EditConflict, Row, Store

from .errors import answered
from .selection import chosen, only
from .session import House

_NEW = {"prompt": "", "response": ""}
_STATUS = {"accepted": "accepted", "rejected": "rejected", "candidate": "put back to review"}
_SPLIT = {"train": "put into training", "heldout": "held out", "": "taken out of the split"}


def changes(
    house: House, shown: Callable[[Row], dict[str, Any]], state: Callable[[Store], dict[str, Any]]
) -> list[Callable]:
    """`shown` is a row as the script takes it, `state` where the project stands."""

    def store_of(name: Any, request: gr.Request) -> Store:
        return Store(house.project(request, str(name)).data)

    @answered
    def edit(asked: list, request: gr.Request) -> dict[str, Any]:
        """One cell. When somebody was quicker nothing is written, and `conflict` is what stands there now."""
        name, id, version, column, text = asked
        with store_of(name, request) as store:
            before = store.stamp
            row = store.get(int(id))
            after = cells.write(row.conversation, {str(column): str(text)})
            try:
                row = store.edit(row.id, after.messages, int(version))
            except EditConflict as conflict:
                now = conflict.current
                return {"conflict": cells.read(now.conversation)[column], "version": now.version, "row": shown(now)}
            return {"row": shown(row), "said": f"Row {row.id} saved", "before": before, "state": state(store)}

    @answered
    def paste(asked: list, request: gr.Request) -> dict[str, Any]:
        """A block over the cells of rows, [id, version, {column: text}], and rows that are new, {column: text}."""
        name, over, new = asked
        edits = [Edit(int(id), int(version), _texts(texts)) for id, version, texts in over]
        with store_of(name, request) as store:
            done = bulk.write_cells(store, edits, [_texts(texts) for texts in new])
        added = f", {len(new):,} of them new, at the end" if new else ""
        return {"said": f"{counted(done)} written{added}" if done else "The rows read so already"}

    @answered
    def add(asked: list, request: gr.Request) -> dict[str, Any]:
        with store_of(only(asked), request) as store:
            bulk.write_cells(store, [], [_NEW])
            return {"total": store.count(), "said": "A new row at the end, to be reviewed"}

    @answered
    def status(asked: list, request: gr.Request) -> dict[str, Any]:
        name, selection, to = asked
        with store_of(name, request) as store:
            return _said(store.set_status(chosen(selection), str(to)), _STATUS[to])

    @answered
    def split(asked: list, request: gr.Request) -> dict[str, Any]:
        name, selection, to = asked
        with store_of(name, request) as store:
            return _said(bulk.set_split(store, chosen(selection), str(to)), _SPLIT[to])

    @answered
    def system(asked: list, request: gr.Request) -> dict[str, Any]:
        name, selection, text = asked
        with store_of(name, request) as store:
            done = bulk.set_system(store, chosen(selection), str(text).strip())
        return _said(done, "given a system prompt of their own" if str(text).strip() else "under the project's prompt")

    @answered
    def duplicate(asked: list, request: gr.Request) -> dict[str, Any]:
        name, selection = asked
        with store_of(name, request) as store:
            return _said(bulk.duplicate(store, chosen(selection)), "duplicated, the copies at the end")

    @answered
    def remove(asked: list, request: gr.Request) -> dict[str, Any]:
        name, selection = asked
        with store_of(name, request) as store:
            return _said(store.delete(chosen(selection)), "deleted")

    @answered
    def undo(asked: list, request: gr.Request) -> dict[str, Any]:
        with store_of(only(asked), request) as store:
            what = store.undo()
        return {"said": f"Undone: {what}" if what else "Nothing to undo"}

    @answered
    def redo(asked: list, request: gr.Request) -> dict[str, Any]:
        with store_of(only(asked), request) as store:
            what = store.redo()
        return {"said": f"Done again: {what}" if what else "Nothing to do again"}

    return [edit, paste, add, status, split, system, duplicate, remove, undo, redo]


def _said(n: int, done: str) -> dict[str, Any]:
    return {"said": f"{counted(n)} {done}" if n else f"Nothing changed: {done} already", "n": n}


def _texts(texts: dict[str, Any]) -> dict[str, str]:
    return {str(column): str(text) for column, text in texts.items()}
