"""Starts a training: freezes the rows into a job folder of its own and spawns the process. Torch-free."""

from __future__ import annotations

import shutil
from pathlib import Path

from .. import jobs, recipe
from ..data.freeze import freeze
from ..data.store import Store
from ..errors import FTError
from ..recipe import Recipe
from ..workspace import Job, Project, write_whole
from . import models


def start(project: Project, wanted: Recipe, recipe_folder: Path | None = None) -> Job:
    """Trains on the project's rows; returns once the process runs.

    `recipe_folder` is what the recipe's paths are relative to, by default the project's folder. Raises FTError when
    there is nothing to train on or no such base model.
    """
    job = create(project, wanted, recipe_folder)
    jobs.start(job)
    return job


def create(project: Project, wanted: Recipe, recipe_folder: Path | None = None) -> Job:
    """The job with its rows frozen, not yet started."""
    folder = recipe_folder or project.path
    models.require(wanted.model.base, wanted.model.revision, folder)
    job = jobs.create(project, "train", wanted)
    write_whole(job.recipe, recipe.dump(recipe.rebase(wanted, folder, job.path)))
    try:
        with Store(project.data) as store:
            freeze(store, job, wanted.data)
    except FTError:
        shutil.rmtree(job.path)
        raise
    return job
