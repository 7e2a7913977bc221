"""Starts the measuring of a trained model on its held-out rows. No torch here: the page imports it."""

from __future__ import annotations

from ft_core import jobs, recipe
from ft_core.workspace import Job, Project


def start(project: Project, train_job: Job) -> Job:
    """A child that measures `train_job`; its result goes to that job's report/heldout.json.

    Raises FTError from the child, as a failed job, when there is nothing trained or no row was held out.
    """
    job = jobs.create(project, "evaluate", recipe.load(train_job.recipe), {"job": train_job.id})
    jobs.start(job)
    return job
