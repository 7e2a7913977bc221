"""What a poll of the page brings, and in which order its answers may come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil

from ft_core import jobs
from ft_core.conversation import Conversation, Message
from ft_core.data.store import Store
from ft_core.events import EventWriter, Finished, Metric, Progress, Started
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
        return page.news in page.look(project.name, stamp, "", at, NOBODY)

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


def test_another_projects_answer_that_comes_late_does_not_stay(workspace: Workspace) -> None:
    page = Page(House(workspace.home, on_space=False))
    page.build()
    late, opened = (workspace.project(name, create=True) for name in ("harbour", "quay"))  # both as empty
    for project in (late, opened):
        Store(project.data).close()
    drawn = page.show(late)
    assert page.news in page.look(opened.name, drawn[page.stamp], drawn[page.steps], [""], NOBODY)


def test_a_step_draws_the_run_alone_and_the_end_all(workspace: Workspace) -> None:
    project = workspace.project("harbour", create=True)
    with Store(project.data) as store:
        store.add([Conversation((Message("user", "Which hall?"), Message("assistant", "The north one.")))])
    job = jobs.create(project, "train", Recipe())
    me = psutil.Process()
    job.pid.write_text(f"{me.pid}\n{me.create_time()}\n")
    writer = EventWriter(job.events)
    writer.write(Started(9))
    writer.write(Metric(1, {"loss": 3.0}))
    page = Page(House(workspace.home, on_space=False))
    demo = page.build()
    side = page.parts["train"].side
    opened = page.show(project)
    at, stamp, steps = opened[side.at], opened[page.stamp], opened[page.steps]

    def asked() -> set[str]:
        told = page.look(project.name, stamp, steps, at, NOBODY)
        return {part.elem_id for part in told}

    stamp = page._stamp(project, at[0])  # the rows were looked at for the first time
    assert asked() == set()
    for event in (Metric(2, {"loss": 2.5}), Progress(2, 9, 70.0, "training")):
        writer.write(event)
    assert asked() == {"stepped"}
    drawn = page.step(project.name, [0], at, NOBODY)
    listening = next(f for f in demo.fns.values() if (page.stepped._id, "change") in f.targets)
    assert set(drawn) <= set(listening.outputs) and len(drawn) < 10
    assert "trained 2.50 at step 2" in drawn[side.chart]["label"]
    assert "step 2 of 9" in drawn[page.header]
    steps = drawn[page.steps]
    assert asked() == set()

    writer.write(Finished({"heldout_before": 3.6, "heldout_after": 2.0, "steps": 2, "adapter": "x"}))
    writer.close()
    assert asked() == {"news"}
    given = {page.project: project.name, page.stamp: stamp, page.turns: [0]}
    drawn = page.tick({**given, **{part.at: "" for part in page.parts.values() if part.at}, side.at: at}, NOBODY)
    assert not drawn[side.stop].visible
    stamp, steps = drawn[page.stamp], drawn[page.steps]
    assert asked() == set()


def test_what_a_run_took_is_what_the_next_one_is_said_to_take(with_builtin: Workspace) -> None:
    project = with_builtin.project("harbour", create=True)
    with Store(project.data) as store:
        store.add(Conversation((Message("user", f"Lot {i}?"), Message("assistant", f"Hall {i}."))) for i in range(20))
    page = Page(House(with_builtin.home, on_space=False))
    page.build()
    tab = page.parts["train"]

    def said() -> list[str]:
        told = tab.tick(project, [""])
        return [told[tab.go].value, *(words for words, _ in told[tab.preset].choices)]

    fast = said()
    job = jobs.create(project, "train", Recipe())
    writer = EventWriter(job.events)
    writer.write(Finished({"tokens_per_s": 0.5, "adapter": "x"}))
    writer.close()
    slow = said()
    assert all(words.endswith((" min", " s")) and " h " not in words for words in fast), fast
    assert all(" h" in words for words in slow), slow
