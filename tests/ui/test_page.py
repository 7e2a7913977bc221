"""What a poll of the page brings, and in which order its answers may come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ft_core import jobs
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished, Metric
from ft_core.recipe import Recipe, TrainRecipe
from ft_core.workspace import Workspace
from ui.page import Page
from ui.session import House

NOBODY = SimpleNamespace()
"""Off a Space everybody is the owner."""


def test_an_answer_that_comes_late_does_not_stay(workspace: Workspace) -> None:
    project = workspace.project("harbour", create=True)
    Store(project.data).close()
    result = {"heldout_before": 3.6, "heldout_after": 2.0, "steps": 1, "adapter": "x"}
    for rank in (4, 8):
        job = jobs.create(project, "train", Recipe(train=TrainRecipe(rank=rank)))
        writer = EventWriter(job.events)
        for event in (Metric(1, {"loss": 3.0}), Finished(result)):
            writer.write(event)
        writer.close()
    page = Page(House(workspace.home, on_space=False))
    page.build()
    side = page.parts["train"].side
    at = [""]

    def poll(stamp: str) -> dict[Any, Any]:
        given = {page.project: project.name, page.stamp: stamp, page.turns: [0]}
        return page.tick({**given, **{part.at: "" for part in page.parts.values() if part.at}, side.at: at}, NOBODY)

    def curves(update: dict[Any, Any]) -> int:
        return len(update[side.chart]["runs"])

    def has_news(stamp: str) -> bool:
        return page.seen in page.look(project.name, stamp, at, NOBODY)

    poll("")  # the rows are looked at for the first time
    late = poll("")
    assert curves(late) == 1 and poll(late[page.stamp]) == {}
    assert has_news("") and not has_news(late[page.stamp])

    at[0] = f"+{project.jobs()[1].id}"  # somebody lays the older run's curve over the newer one's
    assert has_news(late[page.stamp])
    again = poll(late[page.stamp])
    assert curves(again) == 2 and poll(again[page.stamp]) == {}

    opened = page.show(project)
    at[0] = opened[side.at][0]
    assert poll(opened[page.stamp]) == {}  # nothing is drawn twice
