"""Runs whose events were written by hand, and what a test does with them on the Train tab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from playwright.sync_api import Locator, Page, expect

from ft_core import about, jobs
from ft_core.conversation import Conversation, Message
from ft_core.data import split
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished, Metric, Progress, Sample, Started
from ft_core.recipe import Recipe, TrainRecipe
from ft_core.workspace import Job, Project, Workspace

if TYPE_CHECKING:  # conftest makes a fixture of these
    from .conftest import App, Tab

STEPS = 30
TOTAL = 60


@dataclass
class Runs:
    """Three finished trainings and one under way, whose process is the test's own."""

    project: Project
    url: str
    jobs: list[Job] = field(default_factory=list)

    def add(self, rank: int, finished: bool) -> Job:
        job = jobs.create(self.project, "train", Recipe(train=TrainRecipe(rank=rank)))
        writer = EventWriter(job.events)
        writer.write(Started(TOTAL))
        writer.write(Metric(0, {"heldout_loss": 3.6}))
        writer.write(Sample(0, "Who are you?", "I am SmolLM."))
        writer.close()
        for step in range(1, STEPS + 1):
            self.go_on(job, step)
        if finished:
            result = {"heldout_before": 3.6, "heldout_after": 2.0, "steps": STEPS, "kept_step": 20, "adapter": "x"}
            self.say(job, Finished(result))
        else:
            me = psutil.Process()
            job.pid.write_text(f"{me.pid}\n{me.create_time()}\n")
        self.jobs.append(job)
        return job

    def go_on(self, job: Job, step: int) -> None:
        figures = {"loss": 3.6 / step**0.3, "learning_rate": 0.0 if step == 1 else 1e-3 / step, "grad_norm": 1.0,
                   "tokens_per_s": 400.0, "memory_bytes": 2.0**31}  # fmt: skip
        self.say(job, Metric(step, figures), Progress(step, TOTAL, 30.0, "training"))
        if step % 10 == 0:
            self.say(job, Metric(step, {"heldout_loss": 3.6 / step**0.2}))

    def say(self, job: Job, *events) -> None:
        writer = EventWriter(job.events)
        for event in events:
            writer.write(event)
        writer.close()


def runs_of(app: App, name: str) -> Iterator[Runs]:
    """In a project of that name, which ends with them."""
    project = Workspace(app.home).project(name, create=True)
    with Store(project.data) as store:
        store.add(Conversation((Message("user", f"Where is lot {i}?"), Message("assistant", f"In hall {i * 3}.")))
                  for i in range(20))  # fmt: skip
        long = "It stands in the last hall, behind the red gate, next to the crane and the blue barrels. " * 3
        store.add([Conversation((Message("user", "And lot 20?"), Message("assistant", long)))])
        split.assign(store, 0.1, 0)
    made = Runs(project, app.url.replace("Roastery+help+desk", name.replace(" ", "+")))
    for rank in (4, 8, 12):
        made.add(rank, finished=True)
    made.add(16, finished=False)
    about.keep(made.jobs[1], name="rank 8")
    yield made
    project.remove()  # its run would seem interrupted to whoever comes next


def open_train(one: Tab, runs: Runs) -> Page:
    page = one.open(runs.url)
    page.click("#tab-train-button")
    page.wait_for_function(f"document.querySelector('#chart [data-last-step]')?.dataset.lastStep == {STEPS}")
    return page


def tick(page: Page, number: int) -> None:
    page.get_by_label(f"Curves of run {number} over the one you look at").check()
    expect(page.locator(".c-legend")).to_contain_text(f"#{number}")


def named(page: Page, number: int) -> Locator:
    return page.locator(".ft-runs .r-pick", has=page.locator(f"b:text-is('{number}')"))
