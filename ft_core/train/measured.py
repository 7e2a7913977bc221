"""The steps that train/measure.py asks for: those of a real training, without its looks and checkpoints."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..errors import FTError
from ..events import Event, Finished, Progress, Started, Stopped
from ..render import Rendered
from ..workspace import Job
from . import faults
from .plan import MEASURED
from .session import Session


class _Enough(Exception):
    """The steps are made, or nobody wants them any more."""


def measure(job: Job, say: Callable[[Event], None], unwanted: Callable[[], bool]) -> None:
    """Says Finished with tokens_per_s and step_seconds, or Stopped. Raises FTError."""
    try:
        _Measuring(job, say, lambda seconds: unwanted()).run()
    except faults.OutOfMemory as full:
        raise FTError(
            f"memory ran out at step {full.step + 1} of {MEASURED}", "Lower the rows in memory at once (micro_batch)."
        ) from None
    except (RuntimeError, MemoryError) as error:
        raise faults.in_words(error, job) or error from None


class _Measuring(Session):
    def _run(self) -> None:
        self._begin()
        self.say(Started(MEASURED))
        self._load_model()
        self.promised, self.compiles = {}, False
        self.looks.losses = _nothing  # what a reference says is nothing that a step's time depends on
        self._make_learn()
        self.trainer = self._trainer()
        self.took: list[dict[str, float]] = []
        try:
            self._train()
        except _Enough:
            pass
        if len(self.took) < MEASURED:
            self.say(Stopped(len(self.took)))
            return
        warm = self.took[1:]
        speed = sum(step["tokens"] for step in warm) / sum(step["seconds"] for step in warm)
        seconds = [step["seconds"] for step in self.took]
        result = {"job": self.job.id, "steps": MEASURED, "tokens_per_s": speed, "step_seconds": seconds}
        self.say(Finished(result))

    def stepped(self, step: int, figures: dict[str, float]) -> None:
        """It is asked before anything is saved."""
        self.step = step
        self.took.append({"tokens": figures["tokens"], "seconds": figures["seconds"]})
        self._progress("measuring the speed")
        if step == MEASURED or self.must_end_within(0.0):
            raise _Enough

    def _progress(self, what: str) -> None:
        self.say(Progress(self.step, MEASURED, None, what))


def _nothing(model: nn.Module, rows: list[Rendered]) -> list[tuple[float, int]]:
    return [(0.0, 1)] * len(rows)
