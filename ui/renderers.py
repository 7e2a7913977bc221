"""The tokenizer and chat template of a project's base model, for colours and counts on the page. No torch."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ft_core.recipe import BUILTIN, Recipe
from ft_core.render import Renderer
from ft_core.train import models
from ft_core.workspace import Project


def renderer_of(project: Project, wanted: Recipe) -> Renderer | None:
    """None while the built-in model is being prepared."""
    workspace = project.workspace
    if wanted.model.base == BUILTIN and models.prepare_status(workspace).state != "ready":
        return None
    return _read(models.tokenizer_folder(wanted.model.base, wanted.model.revision, workspace, project.path))


@lru_cache(maxsize=4)
def _read(folder: Path) -> Renderer:
    return Renderer.of(folder)
