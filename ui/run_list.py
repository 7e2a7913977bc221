"""The trainings of a project as a list: which is looked at, which lie over it, and what can be done with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ft_core import about
from ft_core.about import About
from ft_core.events import JobView, State
from ft_core.workspace import Job

from .chart import Shown
from .panel import draw
from .run_view import title

MOST_BESIDE = 4
"""Curves of other runs at once: more cannot be told apart."""
_SHOWN = 40

Found = Sequence[tuple[Job, JobView]]
"""The project's trainings, newest first."""


@dataclass(frozen=True)
class Looking:
    """What one page looks at; its state has it as text."""

    run: str = ""
    """A job's id; '' is the one that runs, else the newest."""
    beside: tuple[str, ...] = ()
    """Jobs whose curves lie over it."""

    @classmethod
    def of(cls, text: str) -> Looking:
        run, *beside = text.split("+")
        return cls(run, tuple(beside))

    def __str__(self) -> str:
        return "+".join([self.run, *self.beside])

    def at(self, found: Found) -> tuple[Job, JobView] | None:
        """The run that is looked at; None when nothing was trained."""
        there = {job.id: (job, view) for job, view in found}
        return there.get(self.run) or usual(found)

    def among(self, found: Found) -> Looking:
        """The same, without runs that are gone, or that are looked at anyway."""
        there = {job.id for job, _ in found}
        at = self.at(found)
        kept = [id for id in self.beside if id in there and at and id != at[0].id]
        run = self.run if self.run in there and self.at(found) != usual(found) else ""
        return replace(self, run=run, beside=tuple(kept[:MOST_BESIDE]))


def usual(found: Found) -> tuple[Job, JobView] | None:
    """What a page looks at unless somebody chooses: what runs, else the next in line, else the newest."""
    waiting = [one for one in found if not one[1].state.over]
    running = [one for one in waiting if one[1].state is State.RUNNING]
    return next(iter([*running, *waiting[::-1], *found]), None)


@dataclass(frozen=True)
class Line:
    """One run of the list."""

    job: Job
    number: int
    about: About
    text: str
    waits: bool
    marked: bool
    """Its curve lies over the one that is looked at."""
    chosen: bool
    steps: int
    """Half as many again as it was planned for: what to offer for going further."""


def lines(found: Found, looking: Looking) -> list[Line]:
    at = looking.at(found)
    number = about.numbers([job for job, _ in reversed(found)])
    ahead = ""
    made = []
    for job, view in reversed(found):  # the oldest first, as they stand in line
        text = title(view)
        if view.state is State.QUEUED and ahead:
            text += f", after run {ahead}"
        if not view.state.over:
            ahead = str(number[job.id])
        made.append(Line(job, number[job.id], about.read(job), text, view.state is State.QUEUED,
                         job.id in looking.beside, bool(at) and job.id == at[0].id,
                         round(1.5 * (view.total or 40))))  # fmt: skip
    return made[::-1]


def list_panel(listed: Sequence[Line]) -> str:
    full = sum(line.marked for line in listed) >= MOST_BESIDE
    return draw("runs", runs=listed[:_SHOWN], older=max(0, len(listed) - _SHOWN), full=full, most=MOST_BESIDE)


def about_panel(listed: Sequence[Line]) -> str:
    """Name, note and what can be done with the run that is looked at; it depends on nothing that a run changes, so
    that what somebody types there stays."""
    line = next((line for line in listed if line.chosen), None)
    return draw("about", line=line, longest=about.LONGEST) if line else ""


def shown(found: Found, listed: Sequence[Line]) -> list[Shown]:
    """For the chart: the run that is looked at, then those over it, in the order of their numbers."""
    views = dict(found)
    wanted = [line for line in listed if line.chosen], [line for line in listed[::-1] if line.marked]
    return [
        Shown(line.job, f"#{line.number}", f"#{line.number} {line.about.name}".strip(), views[line.job])
        for part in wanted
        for line in part
    ]
