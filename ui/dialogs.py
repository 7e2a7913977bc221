"""What the dialogs over the grid ask for: find and replace, versions, and the log. Their script is dialogs.js."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ft_core.conversation import Conversation, Message
from ft_core.data import bulk, operations, versions
from ft_core.data.bulk import Find
from ft_core.data.store import Store
from ft_core.data.versions import Change, State
from ft_core.errors import FTError

from .changes import pieces
from .errors import answered
from .selection import chosen
from .session import House

_LOOK_S = 4.0
"""How long a preview looks; after that it says "at least"."""
_CHANGES = 20
"""Rows that a preview, and a page of a difference, show."""
_MOST_LINES = 2000
"""Lines of the log that one call gives."""


def dialogs(house: House) -> list[Callable]:
    """The functions that the script calls; each takes its arguments as one list, the project's name first."""

    def store_of(name: Any, request: gr.Request) -> Store:
        return Store(house.project(request, str(name)).data)

    @answered
    def find_places(asked: list, request: gr.Request) -> dict[str, Any]:
        name, find, selection = asked
        with store_of(name, request) as store:
            found = bulk.preview(store, chosen(selection), _find(find), _CHANGES, _LOOK_S)
        shown = [{"id": r.id, "turns": _turns(r.before, r.after)} for r in found.replacements]
        return {"rows": found.rows, "places": found.places, "whole": found.whole, "shown": shown}

    @answered
    def replace_places(asked: list, request: gr.Request) -> dict[str, Any]:
        name, find, selection = asked
        with store_of(name, request) as store:
            changed = bulk.replace_text(store, chosen(selection), _find(find))
        said = f"Replaced in {operations.counted(changed)}; Undo takes it back" if changed else "Nothing was found"
        return {"changed": changed, "said": said}

    @answered
    def list_versions(asked: list, request: gr.Request) -> dict[str, Any]:
        name, lines = asked
        lines = max(0, min(int(lines), _MOST_LINES))
        with store_of(name, request) as store:
            named, log = versions.versions(store), store.log(lines + 1)
        return {
            "versions": [vars(version) for version in named],
            "log": [vars(operation) for operation in log[:lines]],
            "more": lines < min(len(log), _MOST_LINES),
        }

    @answered
    def name_version(asked: list, request: gr.Request) -> dict[str, Any]:
        name, version = asked
        with store_of(name, request) as store:
            made = versions.name(store, str(version))
        return {"said": f"The rows as they are now are version {made.name}"}

    @answered
    def compare_versions(asked: list, request: gr.Request) -> dict[str, Any]:
        """`after` '' is now."""
        name, before, after, offset = asked
        with store_of(name, request) as store:
            found = versions.diff(store, _name(before), str(after), max(0, int(offset)), _CHANGES)
        counts = {"added": found.added, "removed": found.removed, "changed": found.changed}
        return {**counts, "system": pieces(*found.system), "shown": [_change(change) for change in found.changes]}

    @answered
    def restore_version(asked: list, request: gr.Request) -> dict[str, Any]:
        name, version = asked
        with store_of(name, request) as store:
            changed = versions.restore(store, _name(version))
        what = f"{changed:,} change{'' if changed == 1 else 's'} of rows"
        return {"said": f"Back to version {version}, {what}; Undo takes it back"}

    return [find_places, replace_places, list_versions, name_version, compare_versions, restore_version]


def _find(asked: Any) -> Find:
    if not isinstance(asked, dict):
        raise FTError("the page did not say what to find", "Reload the page.")
    texts = {key: str(asked.get(key) or "") for key in ("find", "put", "role")}
    return Find(**texts, regex=bool(asked.get("regex")), case=bool(asked.get("case")))


def _name(version: Any) -> str:
    if not version:
        raise FTError("no version is chosen", "Choose one, or name the rows as they are now.")
    return str(version)


def _turns(before: Conversation, after: Conversation) -> list[dict[str, Any]]:
    """The turns that differ, each with its role and the pieces that lead from one text to the other."""
    found = []
    for i in range(max(len(before.messages), len(after.messages))):
        a, b = (m[i] if i < len(m) else None for m in (before.messages, after.messages))
        if a != b:
            found.append({"role": _role(a, b), "pieces": pieces(a.content if a else "", b.content if b else "")})
    if before.rejected != after.rejected:
        found.append({"role": "worse answer", "pieces": pieces(before.rejected, after.rejected)})
    return found


def _role(a: Message | None, b: Message | None) -> str:
    if a and b and a.role != b.role:
        return f"{a.role}, now {b.role}"
    return (b or a).role


def _change(change: Change) -> dict[str, Any]:
    nothing = Conversation(())
    before, after = change.before, change.after
    turns = _turns(before.conversation if before else nothing, after.conversation if after else nothing)
    return {"id": change.id, "kind": change.kind, "turns": turns, "moved": _moved(before, after)}


def _moved(before: State | None, after: State | None) -> list[list[str]]:
    """What else is otherwise of a changed row, as (what, before, after)."""
    if not before or not after:
        return []
    sides = (("status", before.status, after.status), ("split", before.split or "none", after.split or "none"))
    return [list(side) for side in sides if side[1] != side[2]]
