"""The project that is there on first start, so that the whole way can be walked without typing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

from ..conversation import Conversation
from ..recipe import DataRecipe
from ..workspace import Project, Workspace
from . import split
from .store import Store

NAME = "Roastery help desk"
SYSTEM = "You are the help desk of Fjord, a small coffee roastery in Lerwick."
ROWS = Path(__file__).parents[2] / "space_config" / "examples" / "roastery.jsonl"


def example_project(workspace: Workspace) -> Project | None:
    """Puts the example into a workspace that has no project yet, split and ready to train; None when it has one.

    It is made aside and moved into place whole, so two pages that open at once make one.
    """
    if workspace.projects():
        return None
    aside = Path(tempfile.mkdtemp(prefix="example-", dir=workspace.cache))
    try:
        with Store(aside / "data.sqlite") as store:
            store.set_system(SYSTEM, "example")
            store.add(_conversations(), who="example")
            split.assign(store, DataRecipe.heldout, DataRecipe.seed)
        workspace.folder.mkdir(parents=True, exist_ok=True)
        os.rename(aside, workspace.folder / NAME)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        return None  # somebody was faster
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return workspace.project(NAME, create=True)


def _conversations() -> list[Conversation]:
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    return [
        Conversation(Conversation.from_dict(json.loads(line)).messages, f"{ROWS.name}, row {n}")
        for n, line in enumerate(lines, 1)
    ]
