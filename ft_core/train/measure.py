"""Three steps of a training, to know how fast the machine makes them: a job of its own, of which one figure is kept.

The figure stands in its last event, where the next estimate of the same model and method finds it beside those of the
project's trainings. Torch-free; the steps themselves are in measured.py.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from .. import jobs, recipe
from ..errors import FTError
from ..events import Event, Finished, Progress, Stopped
from ..recipe import Recipe
from ..workspace import Job, Project
from . import engines, further
from . import start as training
from .plan import MEASURED


def start(project: Project, wanted: Recipe, recipe_folder: Path | None = None) -> Job:
    """Measures how fast `wanted` trains on the project's rows; returns once the process runs, or waits for its turn.

    Earlier measurings of the project are taken away. Raises FTError as a training does, and where one process on this
    machine says nothing of the speed.
    """
    compute = wanted.compute
    if compute.where != "here" or compute.processes > 1:
        where = "another machine" if compute.where != "here" else f"{compute.processes} processes"
        raise FTError(f"three steps in one process here do not tell the speed of {where}", "Its first run will.")
    # None of these is reached in three steps, and none changes what a step takes.
    few = replace(wanted.train, steps=MEASURED + 1, evaluate_every=MEASURED + 1, save_every=MEASURED + 1, mirror=())
    job = training.create(project, replace(wanted, train=few), recipe_folder, "measure")
    for other in project.jobs():
        if other != job and (seen := jobs.view(other)).kind == "measure" and seen.state.over:
            shutil.rmtree(other.path)
    jobs.start(job)
    return job


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """For the child process. Ends with Finished, whose result has tokens_per_s, or Stopped. Raises FTError."""
    if not job.dataset.exists():
        raise FTError("this measuring is over", "Measure again.")
    yield Progress(0, MEASURED, None, "loading the libraries")
    said: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    left = threading.Event()
    with ThreadPoolExecutor(1, f"measure {job.id}") as pool:
        steps = pool.submit(_measure, job, said.put, lambda: left.is_set() or job.stop.exists())
        steps.add_done_callback(lambda _: said.put(None))
        try:
            while (event := said.get()) is not None:
                if isinstance(event, Finished | Stopped):
                    _take_away(job)  # before the last word: whoever hears that may start another
                yield event
            steps.result()  # raises here what was raised there
        finally:
            left.set()
            _take_away(job)


def _measure(job: Job, say: Callable[[Event], None], unwanted: Callable[[], bool]) -> None:
    engines.enter(recipe.load(job.recipe).train.engine, job.project.workspace.cache)
    from .measured import measure  # seconds of import, and something has been said by now

    measure(job, say, unwanted)


def _take_away(job: Job) -> None:
    """All but the recipe and what was said."""
    with contextlib.suppress(FileNotFoundError):
        job.dataset.unlink()
    for folder in (job.checkpoints, job.path / "report", job.path / further.FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
