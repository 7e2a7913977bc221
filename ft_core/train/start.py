"""Starts a training: freezes the rows into a job folder of its own and spawns the process. Torch-free."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from .. import jobs, recipe
from ..data.freeze import freeze
from ..data.store import Store
from ..machine import this_machine
from ..recipe import Recipe
from ..workspace import Job, Project, write_whole
from . import extra, methods, models


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
    methods.require(wanted.train.method, this_machine())
    extra.check(wanted.train.extra)
    job = jobs.create(project, "train", wanted)
    with ExitStack() as unless_done:  # a refusal, or Ctrl-C while many rows are frozen, leaves no job behind
        unless_done.callback(shutil.rmtree, job.path)
        write_whole(job.recipe, recipe.dump(recipe.rebase(wanted, folder, job.path)))
        with Store(project.data) as store:
            freeze(store, job, wanted.data)
        unless_done.pop_all()
    return job
