"""The drawer beside the grid: one row with all its turns, and what the model sees of it. Its script is drawer.js."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from ft_core.data.store import Row, Store

from .errors import answered
from .session import House

Parts = Callable[[Any, Row, Store], tuple[list[tuple[str, bool]], str]]
"""(project, row, store) -> the rendered text of the row in pieces with whether each is learnt, and a note."""


def drawer(house: House, parts: Parts) -> list[Callable]:
    """The functions that the drawer's script calls; each takes its arguments as one list, the project's name first."""

    @answered
    def detail(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id = asked
        project = house.project(request, str(name))
        with Store(project.data) as store:
            row = store.get(int(id))
            pieces, note = parts(project, row, store)
        messages = [m.to_dict() for m in row.conversation.messages]
        return {"id": row.id, "version": row.version, "messages": messages, "parts": pieces, "note": note}

    @answered
    def edit_turns(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id, version, texts = asked
        with Store(house.project(request, str(name)).data) as store:
            messages = list(store.get(int(id)).conversation.messages)
            for at, text in texts.items():
                messages[int(at)] = replace(messages[int(at)], content=str(text))
            row = store.edit(int(id), tuple(messages), int(version))
        return {"said": f"Row {row.id} saved"}

    return [detail, edit_turns]
