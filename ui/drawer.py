"""The drawer beside the grid: one row with all its turns, and what the model sees of it. Its script is drawer.js."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import gradio as gr

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk
from ft_core.data.columns import Query
from ft_core.data.store import EditConflict, Row, Store
from ft_core.errors import FTError
from ft_core.generate.answer import Asking, Question
from ft_core.recipe import BUILTIN
from ft_core.workspace import Project

from . import say
from .errors import answered
from .frame import Recipes
from .renderers import renderer_of
from .seen import seen
from .selection import query_of
from .session import House

_ASKED_AT_ONCE = 8
"""Teachers that may be asked at a time, in threads of their own: no other call of the page waits for them."""

_DO = {
    "empty": "Write what is missing, or delete the row.",
    "too_short": "Write a fuller answer, or reject the row.",
    "too_long": "Shorten it, or split it into several rows.",
    "repetitive": "Cut the repetition, or write the answer anew.",
    "misspelt": "Correct the words.",
    "cut_off": "Write the answer to its end, or write it anew.",
    "refusal": "Write the answer that should be given, or reject the row.",
    "personal_data": "Replace it by an invented one: what is learnt can be said again to anybody.",
    "secret": "Take it out, and have the secret itself changed.",
    "template": "Put the turns into the order that the template wants, or choose another base model.",
    "nothing_learnt": "Add an answer by the assistant: only those are learnt.",
    "cut": "Shorten the row, or raise the longest conversation on the Train tab.",
    "language": "Write it in the language of the others, or reject the row.",
    "duplicate": "Keep one of them and delete the others.",
    "near_duplicate": "Keep the better one, or make them differ.",
    "similar": "Fine when they teach different things; else keep the better one.",
    "leak": "Put both on one side of the split, or the held-out loss flatters.",
}
"""What to do about a flag of the audit, by its name."""


def drawer(house: House, recipes: Recipes) -> list[Callable]:
    """The functions that the drawer's script calls; each takes its arguments as one list, the project's name first."""
    asking, threads = Asking(), ThreadPoolExecutor(_ASKED_AT_ONCE, "teacher")

    def project_of(name: Any, request: gr.Request) -> Project:
        return house.project(request, str(name))

    @answered
    def detail(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id, view, near = asked
        project = project_of(name, request)
        with Store(project.data) as store:
            row = store.get(int(id))
            wanted = recipes.of(project).generate
            return {
                **_turns(row),
                "status": row.status,
                "split": row.split,
                "origin": row.conversation.origin,
                "place": _place(store, query_of(view), row.id, int(near)),
                "flags": _flags(row),
                "seen": _seen(recipes, project, store, row.conversation),
                "teacher": "" if wanted.teacher == BUILTIN else wanted.teacher,
            }

    @answered
    def seen_turns(asked: list, request: gr.Request) -> dict[str, Any]:
        """The same of turns that are not stored yet."""
        name, id, turns = asked
        project = project_of(name, request)
        with Store(project.data) as store:
            conversation = replace(store.get(int(id)).conversation, messages=_messages(turns))
            return {"seen": _seen(recipes, project, store, conversation)}

    @answered
    def save_turns(asked: list, request: gr.Request) -> dict[str, Any]:
        """One operation. When somebody was quicker nothing is changed, and `conflict` is how the row stands now."""
        name, id, version, turns, worse = asked
        with Store(project_of(name, request).data) as store:
            try:
                row = store.edit(int(id), _messages(turns), int(version), rejected=str(worse))
            except EditConflict as conflict:
                return {"conflict": _turns(conflict.current)}
        return {"version": row.version, "said": f"Row {row.id} saved"}

    @answered
    def judge(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id, to = asked
        with Store(project_of(name, request).data) as store:
            store.set_status([int(id)], str(to))
        return {"said": f"Row {int(id)} {'put back to review' if to == 'candidate' else to}"}

    @answered
    def delete_row(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id = asked
        with Store(project_of(name, request).data) as store:
            store.delete([int(id)])
        return {"said": f"Row {int(id)} deleted; Undo brings it back"}

    @answered
    def copy_row(asked: list, request: gr.Request) -> dict[str, Any]:
        name, id = asked
        with Store(project_of(name, request).data) as store:
            if not bulk.duplicate(store, [int(id)]):
                raise FTError(f"there is no row {int(id)}", "It may have been deleted.")
            copy = store.rows(store.count() - 1, 1)[0].id
        return {"id": copy, "said": f"Row {int(id)} duplicated as row {copy}, at the end"}

    @answered
    async def write_anew(asked: list, request: gr.Request) -> dict[str, Any]:
        """The teacher's answer to the turns; nothing is stored, and '' when it was stopped."""
        name, turns, key, ticket = asked
        project = project_of(name, request)
        with Store(project.data) as store:
            before = Conversation(_messages(turns)).with_system(store.system)
        question = Question(before.messages, recipes.of(project).generate)
        arguments = (f"{project.path} {ticket}", project.workspace, question, str(key))
        return {"text": await asyncio.get_running_loop().run_in_executor(threads, asking.ask, *arguments)}

    @answered
    def stop_writing(asked: list, request: gr.Request) -> dict[str, Any]:
        name, ticket = asked
        asking.stop(f"{project_of(name, request).path} {ticket}")
        return {}

    return [detail, seen_turns, save_turns, judge, delete_row, copy_row, write_anew, stop_writing]


def _turns(row: Row) -> dict[str, Any]:
    """`more` and `tools` go to the page and come back as text, so that no number changes on the way."""
    said = row.conversation
    turns = [{"role": m.role, "content": m.content, "more": m.more} for m in said.messages]
    return {"id": row.id, "version": row.version, "turns": turns, "tools": said.tools, "worse": said.rejected}


def _messages(turns: Any) -> tuple[Message, ...]:
    """Of what the page sent. Raises FTError for what is no turn."""
    try:
        return tuple(
            Message.from_dict(
                {**json.loads(turn.get("more") or "{}"), "role": turn["role"], "content": turn["content"]}
            )
            for turn in turns
        )
    except (TypeError, KeyError, AttributeError, json.JSONDecodeError):
        raise FTError("a turn is not what the page sends", "Reload the page.") from None


def _place(store: Store, query: Query, id: int, near: int) -> dict[str, int | None]:
    """Where a row stands among those that the grid shows, and the rows beside it.

    A row that is no longer among them, as after Accept in those to review, has the neighbours of place `near`.
    """
    index = store.place(query, id)
    at = near if index is None else index
    around = store.page(query, max(0, at - 1), 3)
    beside = [row.id for row in around.rows]
    behind = beside[1:] if at else beside  # from the row itself, or from the one that took its place
    behind = [other for other in behind if other != id]
    return {
        "index": index,
        "total": around.total,
        "previous": beside[0] if at and beside else None,
        "next": behind[0] if behind else None,
    }


def _flags(row: Row) -> list[dict[str, str]]:
    flags = row.audit.flags if row.audit else ()
    return [{"name": f.name.replace("_", " "), "reason": f.reason, "do": _DO.get(f.name, "")} for f in flags]


def _seen(recipes: Recipes, project: Project, store: Store, conversation: Conversation) -> dict[str, Any]:
    """The rendered text with its tokens, or why there is none."""
    wanted = recipes.of(project)
    renderer = renderer_of(project, wanted)
    if renderer is None:
        return {"refused": "The base model is still being got ready; then this shows what it sees."}
    try:
        return asdict(seen(renderer, conversation.with_system(store.system), wanted.train.max_length))
    except FTError as error:
        return {"refused": f"{say.sentence(error.message)} {say.sentence(error.hint)}".strip()}
