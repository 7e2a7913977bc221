"""Starts a training: freezes the rows into a job folder of its own and spawns the process. Torch-free."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from .. import jobs, recipe
from ..data.freeze import freeze
from ..data.store import Store
from ..errors import FTError
from ..events import EventWriter, Note, State
from ..recipe import Recipe
from ..workspace import Job, Project, write_whole
from . import checkpoints, compute, extra, further, mirror, models, rent, trackers


def start(
    project: Project, wanted: Recipe, recipe_folder: Path | None = None, secrets: dict[str, str] | None = None
) -> Job:
    """Trains on the project's rows; returns once the process runs.

    `recipe_folder` is what the recipe's paths are relative to, by default the project's folder. `secrets` may have
    HF_TOKEN, which a rented machine wants, and a base model that its owner hands out to some. Raises FTError when
    there is nothing to train on, or no such base model, or it may not be had.
    """
    token = (secrets or {}).get("HF_TOKEN", "")
    if compute.is_rented(wanted.compute):
        rent.check(wanted, token)
    job = create(project, wanted, recipe_folder, token=token)
    jobs.start(job, secrets)
    return job


def go_on(job: Job, steps: int, secrets: dict[str, str] | None = None) -> None:
    """Goes on with a training, also a finished one, until it has made `steps` steps in all.

    Weights and optimizer are those of its last checkpoint. The learning rate is from there on what it would have been
    in a training planned for so many steps: where it had fallen to nothing it rises at once, and falls again. So the
    first steps are those of the shorter plan, and the whole is not the same as one training of so many steps. One that
    ended early waits no more (patience 0). Raises FTError when it runs, or has made so many steps.
    """
    seen = jobs.view(job)
    if seen.kind != "train":
        raise FTError(f"job {job.id} is no training", "Only a training has steps to go on to.")
    if jobs.alive(job):
        raise FTError(f"job {job.id} is {seen.state}", "Wait for it, or stop it first.")
    last = checkpoints.last_whole(job)
    done = checkpoints.step_of(last) if last else 0
    if steps <= done:
        raise FTError(f"job {job.id} has made {done} steps", "Give a number of steps beyond that.")
    wanted = recipe.load(job.recipe)
    train = recipe.checked(replace(wanted.train, steps=steps))
    if seen.state is State.FINISHED and seen.result["steps"] < seen.total:
        train = replace(train, patience=0)
        _tell(job, Note("It had ended early; from here on it does not, however the held-out loss goes (patience 0)."))
    write_whole(job.recipe, recipe.dump(replace(wanted, train=train)))
    jobs.resume(job, secrets, finished_too=True)


def create(
    project: Project, wanted: Recipe, recipe_folder: Path | None = None, kind: str = "train", token: str = ""
) -> Job:
    """The job with its rows frozen, not yet started. `kind` may be measure (see measure.py)."""
    folder = recipe_folder or project.path
    models.require(wanted.model.base, wanted.model.revision, folder, token)
    asked = wanted
    wanted, origin = further.planned(project, wanted, folder)
    compute.require(wanted)
    extra.check(wanted.train.extra)
    mirror.check(wanted.train.mirror)
    trackers.check(wanted.train.report_to)
    job = jobs.create(project, kind, wanted)
    with ExitStack() as unless_done:  # a refusal, or Ctrl-C while many rows are frozen, leaves no job behind
        unless_done.callback(shutil.rmtree, job.path)
        mine = recipe.rebase(wanted, folder, job.path)
        if origin:
            further.take(origin, job)
            mine = replace(mine, model=replace(mine.model, adapter=further.FOLDER))
            _tell(job, Note(further.said(asked, wanted, origin)))
        write_whole(job.recipe, recipe.dump(mine))
        with Store(project.data) as store:
            freeze(store, job, wanted.data)
        unless_done.pop_all()
    return job


def _tell(job: Job, note: Note) -> None:
    writer = EventWriter(job.events)
    writer.write(note)
    writer.close()
