"""What a project is, as plain values, and what the page says of it. Pure: facts in, steps and HTML out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ft_core.events import JobView, State
from ft_core.workspace import Job

from .panel import draw
from .runs import usable

Tab = Literal["generate", "data", "train", "compare", "export"]


@dataclass(frozen=True)
class Facts:
    """A project as its folder tells it."""

    rows: int = 0
    to_review: int = 0
    blocking: tuple[str, ...] = ()
    """What must be put right before training, a sentence each."""
    training: JobView | None = None
    """The newest training."""
    trained: JobView | None = None
    """The newest training that left a usable adapter."""
    compared: bool = False
    """Somebody has asked both models of `trained`."""
    exported: JobView | None = None
    """The newest export of `trained`."""


@dataclass(frozen=True)
class Step:
    """One part of the state line."""

    tab: Tab
    text: str
    mark: Literal["done", "doing", "open", "wrong"]
    note: str = ""


@dataclass(frozen=True)
class Next:
    tab: Tab
    text: str


def steps(facts: Facts) -> list[Step]:
    """The way through the page and how far this project went."""
    if not facts.rows:
        return [Step("data", "no rows yet", "open")]
    way = [Step("data", f"{facts.rows:,} row{'s' if facts.rows > 1 else ''}", "done")]
    if facts.blocking:
        way.append(Step("data", "not ready to train", "wrong", facts.blocking[0]))
        return way
    way.append(Step("data", "checked", "done"))
    way.append(_training_step(facts))
    if facts.trained:
        way.append(Step("compare", "compared" if facts.compared else "not compared", _mark(facts.compared)))
        way.append(_export_step(facts.exported))
    return way


def _mark(done: bool) -> Literal["done", "open"]:
    return "done" if done else "open"


def _training_step(facts: Facts) -> Step:
    run = facts.training
    if run and not run.state.over:
        place = f"step {run.step} of {run.total}" if run.total else "starting"
        return Step("train", "training", "doing", place)
    if facts.trained:
        return Step("train", "trained", "done", heldout_change(facts.trained))
    if run and run.state in (State.FAILED, State.INTERRUPTED):
        return Step("train", f"training {run.state}", "wrong")
    return Step("train", "not trained", "open")


def _export_step(export: JobView | None) -> Step:
    if export is None:
        return Step("export", "not exported", "open")
    if not export.state.over:
        return Step("export", "exporting", "doing")
    if export.state is State.FINISHED:
        return Step("export", "exported", "done", "verified" if export.result.get("verified") else "")
    return Step("export", "export failed", "wrong")


def heldout_change(view: JobView) -> str:
    """`held-out loss −31 %`, or '' when nothing was held out."""
    before, after = view.result.get("heldout_before"), view.result.get("heldout_after")
    if not before or after is None:
        return ""
    return f"held-out loss {(after / before - 1) * 100:+.0f} %".replace("-", "−").replace("held−out", "held-out")


def next_step(facts: Facts) -> Next | None:
    """What to do now; None when all is done."""
    if not facts.rows:
        return Next("data", "add rows")
    if facts.blocking:
        return Next("data", "look at the rows")
    if facts.training and not facts.training.state.over:
        return None if facts.trained else Next("train", "watch it learn")
    if not facts.trained:
        return Next("train", "train")
    if not facts.compared:
        return Next("compare", "compare")
    if facts.exported is None or facts.exported.state is not State.FINISHED:
        return Next("export", "export")
    return None


def opens_on(facts: Facts) -> Tab:
    step = next_step(facts)
    return step.tab if step else "train" if facts.training and not facts.training.state.over else "compare"


def trainings(found: list[tuple[Job, JobView]]) -> tuple[JobView | None, tuple[Job, JobView] | None]:
    """The training that runs, else the newest, and the newest one that can be used, out of all (newest first)."""
    newest = next((view for _, view in found if view.state is State.RUNNING), found[0][1] if found else None)
    return newest, next(((job, view) for job, view in found if usable(view)), None)


def header(project: str, projects: list[str], machine: str, facts: Facts, first: str) -> str:
    """Title, project picker, machine and state line.

    `first` adds the words of the first start: how long the example's training takes, in words; '' leaves them out.
    """
    return draw(
        "header",
        project=project,
        projects=projects,
        machine=machine,
        steps=steps(facts),
        next=next_step(facts),
        training=facts.training,
        first=first,
    )
