"""Jobs as pages read them: one fold of each events file for all pages of this process, which reads on where it was."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ft_core import about, events, jobs
from ft_core.events import JobView, State
from ft_core.workspace import Job, Project

_KEPT = 500
"""Job folders whose fold is kept in memory."""


@dataclass
class _Fold:
    offset: int = 0
    view: JobView = JobView()


class Runs:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._folds: OrderedDict[Path, _Fold] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, job: Job) -> JobView:
        """The job as it stands now, its process included."""
        with self._lock:
            fold = self._folds.setdefault(job.path, _Fold())
            self._folds.move_to_end(job.path)
            fresh, offset = events.read(job.events, fold.offset)
            if fresh:
                fold.view, fold.offset = events.fold(fresh, fold.view), offset
            while len(self._folds) > _KEPT:
                self._folds.popitem(last=False)
            seen = fold.view
        return jobs.settle(job, seen)

    def of_kind(self, project: Project, kind: str) -> list[tuple[Job, JobView]]:
        """The project's jobs of one kind, newest first."""
        return [(job, view) for job in project.jobs() if (view := self.view(job)).kind == kind]

    def newest(self, project: Project, kind: str) -> tuple[Job, JobView] | None:
        return next(((job, view) for job in project.jobs() if (view := self.view(job)).kind == kind), None)

    def stamp(self, project: Project) -> str:
        """Changes whenever something a page shows of the project's jobs has, but for the steps of a training."""
        return ";".join(
            f"{job.id}:{view.state}:{'' if is_training(view) else view.updated_at}:{about.read(job)}"
            for job, view in self._newest(project)
        )

    def steps(self, project: Project) -> str:
        """Changes with every step of a training, and all else that one says while it is under way."""
        return ";".join(f"{job.id}:{view.updated_at}" for job, view in self._newest(project) if is_training(view))

    def _newest(self, project: Project) -> list[tuple[Job, JobView]]:
        return [(job, self.view(job)) for job in project.jobs()[:50]]


def is_training(view: JobView) -> bool:
    """Whether it is under way: it says something every second or so, for hours."""
    return view.kind == "train" and not view.state.over


def usable(view: JobView) -> bool:
    """Whether a training left something that can be talked to and exported."""
    return view.state in (State.FINISHED, State.STOPPED) and bool(view.result.get("adapter"))
