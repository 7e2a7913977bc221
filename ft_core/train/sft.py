"""Supervised fine-tuning as slices of time.

A child process takes one slice without end; ZeroGPU, which grants a minute or two and allows no child, takes as many
as it needs. Every slice goes on from the last whole checkpoint and gives the same weights as one long run.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from ..events import Event, Progress
from ..workspace import Job


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """The whole training, for the child process."""
    return train_slice(job, None)


def train_slice(job: Job, deadline: float | None) -> Iterator[Event]:
    """Trains on from the last checkpoint until `deadline` (seconds of time.time(); None is never).

    Ends with Finished, or with Stopped once `job.stop` exists; with neither when the deadline came first: then take
    another slice. At least one step is made in a slice. Closing the iterator early saves a checkpoint too. Raises
    FTError when the training cannot go on.
    """
    yield Progress(0, 0, None, "loading the libraries")
    from .session import Session  # seconds of import, and something has been said by now

    said: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    abandoned = threading.Event()

    def must_end(within_s: float) -> bool:
        late = deadline is not None and time.time() + within_s >= deadline
        return late or abandoned.is_set() or job.stop.exists()

    def work() -> None:
        try:
            Session(job, said.put, must_end).run()
            said.put(None)
        except BaseException as error:  # carried over to whoever iterates, where it is raised again
            said.put(error)

    worker = threading.Thread(target=work, name=f"train {job.id}")
    worker.start()
    try:
        while (event := said.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        abandoned.set()
        worker.join()
