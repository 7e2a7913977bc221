"""Where a recipe's base model lies: the built-in one, a folder, or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import FTError
from ..recipe import BUILTIN, ModelRecipe
from ..workspace import BUILTIN_REPO, Job, Workspace
from . import download
from .download import Report


def resolve(
    base: str, revision: str, workspace: Workspace, relative_to: Path, report: Report, token: str = ""
) -> Path:
    """The folder of the base model, made or downloaded where it is not there yet.

    `relative_to` is the folder of the recipe. Raises FTError for a model that does not exist, is gated, or holds its
    weights in another format than safetensors.
    """
    if base == BUILTIN:
        if workspace.builtin_model.exists():
            return workspace.builtin_model
        from .builtin import ensure_builtin  # it loads what converts; a model that is there needs none of it

        return ensure_builtin(workspace, report)
    folder = relative_to / base
    if not folder.is_dir():
        if ".." in Path(base).parts:  # a folder beside the recipe, which no name on the Hub is
            raise FTError(
                f"the base model {folder.name} is gone: its folder is not where it was",
                "Put it back, then resume; everything else of the training is kept.",
            )
        folder = download.snapshot(base, revision, report, token=token)
    download.require_whole(folder, public_name(base, relative_to))
    return folder.resolve()


def of_trained(result: dict[str, Any], wanted: ModelRecipe, job: Job) -> Path:
    """The folder of the base by the result of a training; of one on a rented machine it may have to be fetched."""
    folder = Path(result["base"])
    if "rented" not in result or folder.is_dir():
        return folder
    return resolve(wanted.base, wanted.revision, job.project.workspace, job.path, lambda share, what: None)


def public_name(base: str, relative_to: Path) -> str:
    """What the outside may know of a base: its Hub id, or the bare name of a local folder, never its path."""
    if base == BUILTIN:
        return BUILTIN_REPO
    folder = relative_to / base
    return folder.resolve().name if folder.is_dir() else base
