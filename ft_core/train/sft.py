"""Supervised fine-tuning as slices of time.

A child process takes one slice without end; ZeroGPU, which grants a minute or two and allows no child, takes as many
as it needs. Every slice goes on from the last whole checkpoint and gives the same weights as one long run.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from .. import recipe
from ..data.freeze import frozen
from ..events import Event, Progress
from ..workspace import Job
from . import checkpoints
from .plan import Plan


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """The whole training, for the child process."""
    return train_slice(job, None)


def train_slice(job: Job, deadline: float | None) -> Iterator[Event]:
    """Trains on from the last checkpoint until `deadline` (seconds of time.time(); None is never).

    Ends with Finished, or with Stopped once `job.stop` exists; with neither when the deadline came first: then take
    another slice. At least one step is made in a slice. Closing the iterator early saves a checkpoint too. Raises
    FTError when the training cannot go on.
    """
    last = checkpoints.last_whole(job)
    steps = Plan.of(frozen(job.dataset).train, recipe.load(job.recipe).train).steps
    yield Progress(checkpoints.step_of(last) if last else 0, steps, None, "loading the libraries")
    from .session import Session  # seconds of import, and something has been said by now

    said: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    abandoned = threading.Event()

    def must_end(within_s: float) -> bool:
        late = deadline is not None and time.time() + within_s >= deadline
        return late or abandoned.is_set() or job.stop.exists()

    with ThreadPoolExecutor(1, f"train {job.id}") as pool:
        training = pool.submit(lambda: Session(job, said.put, must_end).run())
        training.add_done_callback(lambda _: said.put(None))
        try:
            while (event := said.get()) is not None:
                yield event
            training.result()  # raises here what was raised there
        finally:
            abandoned.set()
