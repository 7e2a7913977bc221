"""The models that can be tuned, and whether the built-in one is ready. Torch-free: the page reads it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import psutil

from .. import jobs
from ..errors import FTError
from ..workspace import Workspace, write_whole


@dataclass(frozen=True)
class Preparation:
    """How far the built-in model is."""

    state: Literal["ready", "preparing", "absent", "failed"]
    share: float
    """0 to 1."""
    what: str


@dataclass(frozen=True)
class PreparationNote:
    """What the process that makes the built-in model writes for everybody who waits for it."""

    share: float
    what: str
    pid: int
    created: float
    """When the process began, because process ids are used again."""
    error: str = ""

    @staticmethod
    @contextlib.contextmanager
    def written(workspace: Workspace, report: Callable[[float, str], None]) -> Iterator[Callable[[float, str], None]]:
        """A `report` that also writes the note; it goes when the work is done and stays, as an error, when not."""
        note = _note(workspace)
        me = {"pid": os.getpid(), "created": psutil.Process().create_time()}

        def tell(share: float, what: str) -> None:
            write_whole(note, json.dumps(asdict(PreparationNote(share, what, **me))))
            report(share, what)

        try:
            yield tell
        except FTError as error:
            failed = PreparationNote(0.0, "", **me, error=f"{error.message} {error.hint}".strip())
            write_whole(note, json.dumps(asdict(failed)))
            raise
        note.unlink(missing_ok=True)


def prepare_status(workspace: Workspace) -> Preparation:
    """Whether the built-in model is there, on its way, or could not be made and why."""
    if workspace.builtin_model.exists():
        return Preparation("ready", 1.0, "")
    try:
        note = PreparationNote(**json.loads(_note(workspace).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Preparation("absent", 0.0, "")
    if note.error:
        return Preparation("failed", 0.0, note.error)
    if not _runs(note.pid, note.created):
        if workspace.builtin_model.exists():  # it was finished between the two looks
            return Preparation("ready", 1.0, "")
        return Preparation("failed", 0.0, "The process that prepared the built-in model ended without a word.")
    return Preparation("preparing", note.share, note.what)


def prepare(workspace: Workspace) -> None:
    """Starts the process that makes the built-in model, unless it is there or on its way."""
    if prepare_status(workspace).state in ("ready", "preparing"):
        return
    with (workspace.cache / "prepare.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ft_core", "--home", str(workspace.home), "prepare"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=jobs.child_environment(),
        )
    note = PreparationNote(0.0, "starting", process.pid, psutil.Process(process.pid).create_time())
    write_whole(_note(workspace), json.dumps(asdict(note)))


def _note(workspace: Workspace) -> Path:
    return workspace.cache / "builtin.json"


def _runs(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
