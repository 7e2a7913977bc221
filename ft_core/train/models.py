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
import yaml

from .. import jobs
from ..errors import FTError
from ..machine import Machine
from ..recipe import BUILTIN, ModelRecipe, Recipe, TrainRecipe
from ..render import Renderer
from ..workspace import Workspace, write_whole
from . import access, download
from .estimate import estimate
from .hardware import Fit, fits
from .sizes import Shape, Work

TYPICAL_TOKENS = 512
CATALOG = Path(__file__).resolve().parents[2] / "space_config" / "models.yaml"


@dataclass(frozen=True)
class BaseModel:
    """A model that the picker offers; any other Hub id or folder works too."""

    base: str
    """What a recipe calls it: built-in, or its id on the Hub."""
    title: str
    parameters: int
    licence: str
    gated: bool
    """Whether its owner wants to be asked on the Hub first."""
    context: int
    """Tokens it can see at once."""
    config: dict[str, int]
    """Its sizes, in the words of its config.json (sizes.Shape.described)."""


def catalog() -> list[BaseModel]:
    """The models that the picker offers, small ones first."""
    return [BaseModel(**entry) for entry in yaml.safe_load(CATALOG.read_text(encoding="utf-8"))]


def fit(model: BaseModel, train: TrainRecipe, machine: Machine) -> tuple[Fit, int]:
    """Whether training `model` by this recipe goes into the machine's memory, and how many bytes it wants.

    Without rows to look at: rows of up to TYPICAL_TOKENS, half of each learnt.
    """
    longest = min(train.max_length, TYPICAL_TOKENS)
    work = Work(
        rows=100,
        tokens=50 * longest,
        heldout_tokens=5 * longest,
        longest=longest,
        learnt=longest // 2,
        spread=longest // 4,
    )
    said = estimate(Shape.described(model.config), train, machine, work)
    return fits(said, machine.gpu_memory_bytes or machine.memory_bytes), said.memory_bytes


def is_ready(workspace: Workspace) -> bool:
    """Whether the built-in model is there."""
    return prepare_status(workspace).state == "ready"


def require(base: str, revision: str, relative_to: Path, token: str = "") -> None:
    """Raises FTError when there is no such base model, or the Hub does not hand it out to whoever `token` belongs to.

    The built-in one is made when it is needed.
    """
    if base != BUILTIN:
        access.require(ModelRecipe(base, revision), relative_to, token)
        _folder(base, revision, relative_to, token)


def tokenizer_folder(
    base: str, revision: str, workspace: Workspace, relative_to: Path = Path(), token: str = ""
) -> Path:
    """A folder with the model's tokenizer, template and configuration, downloaded if need be, without the weights.

    Raises FTError when there is no such model, or the built-in one is not made yet.
    """
    if base != BUILTIN:
        return _folder(base, revision, relative_to, token)
    if not workspace.builtin_model.exists():
        raise FTError("the built-in model is not ready yet", "It is made once, in about half a minute.")
    return workspace.builtin_model


def renderer(wanted: Recipe, workspace: Workspace, relative_to: Path = Path()) -> Renderer:
    """What turns conversations into the tokens of the recipe's base model. Raises FTError as tokenizer_folder does."""
    return Renderer.of(tokenizer_folder(wanted.model.base, wanted.model.revision, workspace, relative_to))


def _folder(base: str, revision: str, relative_to: Path, token: str) -> Path:
    folder = relative_to / base
    if folder.is_dir():
        download.require_whole(folder, folder.resolve().name)
        return folder
    return download.snapshot(base, revision, lambda share, what: None, weights=False, token=token)


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
