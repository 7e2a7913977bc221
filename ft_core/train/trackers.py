"""Where a training's figures also go: TensorBoard, Trackio, Weights & Biases, where they are installed.

They are told what the events say, so they have all that the page has: the loss of each step, the held-out losses, the
answers to the probe prompts. Each is told in a thread of its own: a training neither waits for one nor fails with it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from .. import about, recipe
from ..errors import FTError
from ..events import Event, Finished, Metric, Note, Sample, Stopped
from ..workspace import Job, on_a_space
from . import checkpoints

PACKAGES = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb"}
"""What a recipe may name, and the package that writes for it."""
_HERE = ("tensorboard",)
"""Those that write files, and send nothing."""
_PROJECT = "ft-flow"


def check(names: tuple[str, ...]) -> None:
    """Raises FTError for one that is not known, or not installed, before anything is trained."""
    for name in names:
        if name not in PACKAGES:
            near = difflib.get_close_matches(name, PACKAGES, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(PACKAGES)}."
            raise FTError(f"report_to: figures cannot be sent to {name!r}", hint)
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise FTError(
                f"report_to names {name}, whose package {PACKAGES[name]} is not installed",
                f"pip install {PACKAGES[name]}, or leave it out.",
            )
        if on_a_space() and name not in _HERE:
            raise FTError(
                f"a Space sends no figures to {name}: it would be under the Space's own name", "Leave it out."
            )


def told(job: Job, said: Iterator[Event]) -> Iterator[Event]:
    """`said` as it is, and the recipe's trackers are told of it; one that fails is said once, before the last word."""
    names = recipe.load(job.recipe).train.report_to
    check(names)
    trackers = [_Tracker(name, job) for name in names]
    try:
        for event in said:
            for tracker in trackers:
                tracker.take(event)
                if isinstance(event, Finished | Stopped):
                    tracker.close()
                yield from tracker.complaint()
            yield event
    finally:
        for tracker in trackers:
            tracker.close()


class _Writer(Protocol):
    def figures(self, event: Metric) -> None: ...

    def answer(self, event: Sample) -> None: ...

    def close(self) -> None: ...


class _Tracker:
    """One of them in its thread. What it raises is kept, and ends it: nothing is told to it after that."""

    def __init__(self, name: str, job: Job):
        self.name = name
        self.pool = ThreadPoolExecutor(1, f"{name} {job.id}")
        self.writer: _Writer | None = None
        self.error: BaseException | None = None
        self.complained = self.closed = False
        self._do(self._open, job)

    def _open(self, job: Job) -> None:
        self.writer = _TensorBoard(job) if self.name == "tensorboard" else _Runs(self.name, job)

    def take(self, event: Event) -> None:
        if isinstance(event, Metric):
            self._do(lambda: self.writer.figures(event))
        elif isinstance(event, Sample):
            self._do(lambda: self.writer.answer(event))

    def complaint(self) -> Iterator[Note]:
        if self.error and not self.complained:
            self.complained = True
            why = f"{type(self.error).__name__}: {self.error}".split("\n")[0][:200]
            yield Note(
                f"{self.name} takes no figures ({why}). The training goes on; the page has them all.", "warning"
            )

    def close(self) -> None:
        """Waits until it has been told everything."""
        if not self.closed:
            self.closed = True
            self._do(lambda: self.writer.close())
            self.pool.shutdown()

    def _do(self, task: Any, *arguments: Any) -> None:
        self.pool.submit(self._unless_broken, task, *arguments).add_done_callback(self._heard)

    def _unless_broken(self, task: Any, *arguments: Any) -> None:
        if self.error is None:
            task(*arguments)

    def _heard(self, done: Future[None]) -> None:
        self.error = self.error or done.exception()


class _TensorBoard:
    """Files in <job>/tensorboard, for `tensorboard --logdir`."""

    def __init__(self, job: Job):
        folder = job.path / "tensorboard"
        last = checkpoints.last_whole(job)
        # Steps that a resume makes again are those that count.
        purge = checkpoints.step_of(last) + 1 if last and folder.exists() else None
        self.writer = importlib.import_module("tensorboardX").SummaryWriter(str(folder), purge_step=purge)

    def figures(self, event: Metric) -> None:
        for name, value in event.values.items():
            self.writer.add_scalar(name, value, event.step, walltime=event.at)
        self.writer.flush()

    def answer(self, event: Sample) -> None:
        self.writer.add_text(event.prompt, event.answer, event.step, walltime=event.at)

    def close(self) -> None:
        self.writer.close()


class _Runs:
    """A run of Trackio or of Weights & Biases, which are spoken to alike. Their keys are the environment's."""

    def __init__(self, name: str, job: Job):
        wanted = recipe.load(job.recipe)
        called = about.read(job).name or job.id
        # Not the base and the mirror: paths are nobody's business.
        told = {k: v for k, v in recipe.to_dict(wanted.train).items() if k not in ("mirror", "probes")}
        self.library = importlib.import_module(name)
        place: dict[str, Any] = {"id": job.id, "dir": str(_made(job.path / name))} if name == "wandb" else {}
        self.run = self.library.init(project=_PROJECT, name=called, config=told, resume="allow", **place)

    def figures(self, event: Metric) -> None:
        self.run.log(event.values, step=event.step)

    def answer(self, event: Sample) -> None:
        self.run.log({f"answer to {event.prompt[:60]}": event.answer}, step=event.step)

    def close(self) -> None:
        self.library.finish()


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
