"""What goes wrong while a training runs, told apart and told to people: memory, disk, GPU, a loss that runs away."""

from __future__ import annotations

import contextlib
import errno
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from safetensors import SafetensorError

from .. import recipe
from ..errors import FTError
from ..workspace import Job, write_whole
from . import checkpoints
from .plan import rows_at_once

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's allocators say in a plain RuntimeError: of a CPU, of Apple's GPU, of CUDA's own libraries."""
_TORCH_FILE = "inline_container.cc"
"""Where torch.save fails when the disk takes no more; it does not say why."""
_SLEEP_S = 60.0
_START_STEPS, _LATE_STEPS, _FAR = 5, 20, 1.5
"""A loss diverges when so many late ones in a row are so many times the mean of the first."""


class OutOfMemory(Exception):
    """The rows in memory at once were too many at `step`."""

    def __init__(self, step: int):
        super().__init__(step)
        self.step = step


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def halve(job: Job, step: int) -> str:
    """Writes half the rows in memory at once into the job's recipe, so that a resume computes the same.

    Returns what to tell about it. Raises FTError when there is one row already.
    """
    wanted = recipe.load(job.recipe)
    train = wanted.train
    rows = rows_at_once(train, wanted.compute.processes)
    last = checkpoints.last_whole(job)
    if rows == 1:
        raise FTError(
            f"memory ran out at step {step + 1}, with one row in memory at once",
            f"Shorten the longest conversation (max_length, now {train.max_length}), choose a smaller base model, or "
            f"close what else uses memory and resume: it goes on {checkpoints.whence(last)}.",
        )
    half = replace(train, micro_batch=rows // 2)
    write_whole(job.recipe, recipe.dump(replace(wanted, train=half)))
    return (
        f"Memory ran out at step {step + 1} with {rows} rows in memory at once. The training goes on "
        f"{checkpoints.whence(last)} with {rows // 2} (micro_batch); an update of the weights is of "
        f"{train.batch_size} rows as before, so it learns the same."
    )


def in_words(error: Exception, job: Job) -> FTError | None:
    """The sentence for memory that does not hold the model, and for a GPU that stopped answering; None for others."""
    if is_out_of_memory(error):
        return FTError(
            "memory ran out before the first step: the model itself does not fit",
            "Choose a smaller base model or a method that needs less, or close what else uses memory.",
        )
    if not isinstance(error, torch.AcceleratorError) and "CUDA error" not in str(error):
        return None
    return FTError(
        f"the GPU stopped answering: {str(error).splitlines()[0]}",
        f"Resume goes on {checkpoints.whence(checkpoints.last_whole(job))}. If it comes again, restart the machine.",
    )


@contextlib.contextmanager
def writing(what: str, folder: Path, job: Job) -> Iterator[None]:
    """Around the writing of `folder`. One that was not written to its end is removed, and FTError says why."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = _why_unwritten(error)
        if not reason:
            raise
        last = checkpoints.last_whole(job)
        raise FTError(
            f"{what} could not be written: {reason}", f"Make room, then resume: it goes on {checkpoints.whence(last)}."
        ) from None


def _why_unwritten(error: Exception) -> str:
    """'' for an error that is not about the disk."""
    if isinstance(error, OSError):
        return "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    text = str(error)
    if f"os error {errno.ENOSPC}" in text or _TORCH_FILE in text:
        return "the disk is full"
    return text if isinstance(error, SafetensorError) else ""


def divergence(losses: list[float], rate: float) -> str:
    """What to tell of losses (one a step) that have been far above their start for long; '' of others.

    They are numbers still, and nothing is learnt.
    """
    start, late = losses[:_START_STEPS], losses[-_LATE_STEPS:]
    if len(losses) < _START_STEPS + _LATE_STEPS or min(late) <= _FAR * fmean(start):
        return ""
    return (
        f"The loss stays far above its start ({fmean(start):.2f} nats a token): the training runs away from what it "
        f"should learn (it diverges). {lower(rate)}"
    )


def lower(rate: float) -> str:
    """The advice on a learning rate that was too high."""
    return f"Train again with a lower learning rate, for example {rate / 5:.1g} instead of {rate:g}."


class Clock:
    """Notices that the machine slept: the wall clock goes on meanwhile, the monotonic one does not."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def slept(self) -> float:
        """Seconds asleep since the last call; 0.0 for less than a minute, which may be a clock being set."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return gap if (gap := self._ahead - before) > _SLEEP_S else 0.0
