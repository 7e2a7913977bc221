"""Supervised fine-tuning as slices of time.

A child process takes one slice without end; ZeroGPU, which grants a minute or two and allows no child, takes as many
as it needs. Every slice goes on from the last whole checkpoint and gives the same weights as one long run.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .. import recipe
from ..data.freeze import frozen
from ..events import Event, Finished, Note, Progress, Stopped, fold, read
from ..recipe import BUILTIN
from ..workspace import Job
from . import base, checkpoints, download, engines, mirror, processes, report, trackers, waiting
from .plan import Plan


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """The whole training, for the child process. With HF_TOKEN in `secrets` a base is fetched as that person."""
    if token := secrets.get("HF_TOKEN"):
        yield from _fetched(job, token)
    yield from trackers.told(job, train_slice(job, None))


def _fetched(job: Job, token: str) -> Iterator[Event]:
    """What the Hub hands out to some alone has to be here before a slice asks for it, which knows no token."""
    model = recipe.load(job.recipe).model
    if model.base == BUILTIN or (job.path / model.base).is_dir() or download.here(model.base, model.revision):
        return
    yield Progress(0, 0, None, f"downloading {model.base}")
    base.resolve(model.base, model.revision, job.project.workspace, job.path, lambda share, what: None, token)


def train_slice(job: Job, deadline: float | None) -> Iterator[Event]:
    """Trains on from the last checkpoint until `deadline` (seconds of time.time(); None is never).

    Ends with Finished, or with Stopped once `job.stop` exists; with neither when the deadline came first: then take
    another slice. At least one step is made in a slice. Closing the iterator early saves a checkpoint too. Raises
    FTError when the training cannot go on.
    """
    last = checkpoints.last_whole(job)
    steps = Plan.of(frozen(job.dataset).train, recipe.load(job.recipe).train).steps
    yield Progress(checkpoints.step_of(last) if last else 0, steps, None, "loading the libraries")
    said: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    noted = {note.text for note in fold(read(job.events)[0]).notes}
    abandoned = threading.Event()

    def must_end(within_s: float) -> bool:
        late = deadline is not None and time.time() + within_s >= deadline
        return late or abandoned.is_set() or job.stop.exists()

    def say(event: Event) -> None:
        if isinstance(event, Note):
            if event.text in noted:  # steps that are done again after a resume
                return
            noted.add(event.text)
        said.put(event)

    with ThreadPoolExecutor(1, f"train {job.id}") as pool:
        training = pool.submit(_train, job, say, must_end)
        training.add_done_callback(lambda _: said.put(None))
        try:
            while (event := said.get()) is not None:
                if isinstance(event, Finished | Stopped):
                    yield from _report(job, event)
                yield event
            training.result()  # raises here what was raised there
        finally:
            abandoned.set()


def _report(job: Job, last: Event) -> Iterator[Event]:
    """Before the last word, so that whoever hears that finds the report. A full disk costs the report alone."""
    try:
        report.write(job, last)
    except OSError as error:
        yield Note(f"The report could not be written: {error.strerror}.", "warning")
    yield from mirror.copy_result(job, recipe.load(job.recipe).train.mirror)


def _train(job: Job, say: Callable[[Event], None], must_end: Callable[[float], bool]) -> None:
    """Session after session, each with half as many rows in memory as the one before, until memory suffices."""
    alone = recipe.load(job.recipe).compute.processes == 1
    session = full_at if alone else partial(processes.full_at, full_at)
    while (step := session(job, say, must_end)) is not None:
        from . import faults

        say(Note(faults.halve(job, step), "warning"))


def full_at(job: Job, say: Callable[[Event], None], must_end: Callable[[float], bool]) -> int | None:
    """One session; None once it went through, else the step after which memory ran out. Its memory is free then."""
    waiting.may_spin()
    engines.enter(recipe.load(job.recipe).train.engine, job.project.workspace.cache)
    import torch  # seconds of import, and something has been said by now

    from . import faults
    from .session import Session

    try:
        Session(job, say, must_end).run()
        return None
    except faults.OutOfMemory as full:
        step = full.step
    except (RuntimeError, MemoryError) as error:
        raise faults.in_words(error, job) or error from None
    gc.collect()  # the error's frames held the model, and the model holds itself
    torch.cuda.empty_cache()
    return step
