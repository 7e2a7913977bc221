"""The frame of the page: title, project picker, state line and five tabs; what happens on load and once a second."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from ft_core.compare.client import Engines
from ft_core.data import example, quality
from ft_core.data.store import Store
from ft_core.machine import this_machine
from ft_core.workspace import Project, Workspace

from . import views
from .errors import part_of, told
from .frame import Frame, Recipes, Tab, counts_stamp
from .panel import draw, panel
from .runs import Runs
from .session import House, login_button
from .tab_compare import CompareTab, was_compared
from .tab_data import DataTab
from .tab_export import ExportTab
from .tab_generate import GenerateTab
from .tab_train import TrainTab

_TICK_S = 1.0
_CHECKED_ROWS = 20_000
"""Up to here the state line looks at the rows by itself; beyond, the Train tab's preflight does."""


class Page:
    def __init__(self, house: House):
        self.house = house
        self.machine = str(this_machine())
        self.runs, self.recipes, self.engines = Runs(), Recipes(), Engines()
        self._checked: dict[tuple[Any, str], tuple[str, ...]] = {}

    def build(self) -> gr.Blocks:
        with gr.Blocks(title="FT Flow", analytics_enabled=False, fill_width=True) as demo:
            self.project = gr.Textbox(visible="hidden", elem_id="project")
            self.stamp = gr.Textbox(visible="hidden", elem_id="stamp")
            self.steps = gr.Textbox(visible="hidden", elem_id="steps")
            self.news = gr.Textbox(visible="hidden", elem_id="news")
            self.stepped = gr.Textbox(visible="hidden", elem_id="stepped")
            login_button(self.house)
            self.header = panel(elem_id="header")
            self.notice = panel(elem_id="page-notice")
            frame = Frame(self.house, self.runs, self.project)
            with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as self.tabs:
                self.parts = self._tabs(frame)
            panel(draw("keys"))
            self._listen(demo)
        return demo

    def _tabs(self, frame: Frame) -> dict[str, Tab]:
        parts: dict[str, Tab] = {}
        with gr.Tab("Generate", id="generate", elem_id="tab-generate"):
            parts["generate"] = GenerateTab(frame, self.recipes)
        with gr.Tab("Data", id="data", elem_id="tab-data"):
            parts["data"] = DataTab(frame, self.recipes)
        with gr.Tab("Train", id="train", elem_id="tab-train"):
            parts["train"] = TrainTab(frame, self.recipes)
        with gr.Tab("Compare", id="compare", elem_id="tab-compare"):
            parts["compare"] = CompareTab(frame, self.recipes, self.engines)
        with gr.Tab("Export", id="export", elem_id="tab-export"):
            parts["export"] = ExportTab(frame, self.recipes)
        parts["data"].listen(parts["train"])
        return parts

    def _listen(self, demo: gr.Blocks) -> None:
        everything = [self.header, self.project, self.stamp, self.steps, self.tabs, self.notice]
        for part in self.parts.values():
            everything += part.shown
        tell = told(self.notice)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.turns = gr.State([0])
        demo.load(tell(self.load), [self.project], everything, **quiet)
        streams = self.parts["compare"].streams  # another project's answers are for nobody
        self.header.do(tell(self.do), [self.project, self.turns], everything, cancels=streams, **quiet)
        applied = self.parts["train"].file.applied
        applied.change(tell(self.follow), [self.project], everything, **quiet)
        # Gradio builds each output anew for every answer, also where that says nothing of it. So the clock only says
        # what there is to draw: a run's panels after a step of it, else all but the knobs, which nobody but a person
        # turns.
        side = self.parts["train"].side
        shown, told_of = [self.project, self.stamp, self.steps, side.at], [self.news, self.stepped, self.notice]
        gr.Timer(_TICK_S).tick(tell(self.look), shown, told_of, **quiet)
        places = {part.at for part in self.parts.values() if part.at}
        knobs = {*self.parts["train"].knobs.values(), *self.parts["compare"].knobs.values()}
        drawn = [one for one in everything if one not in knobs]
        self.news.change(tell(self.tick), {self.project, self.stamp, self.turns, *places}, drawn, **quiet)
        run = [self.header, self.steps, self.notice, *side.panels]
        self.stepped.change(tell(self.step), [self.project, self.turns, side.at], run, **quiet)

    # --- events

    def load(self, name: str, request: gr.Request) -> dict[Any, Any]:
        """A page was opened: the project and the tab that its address names (page.js).

        Without one it is the project used last, else the example, made now, and the tab where it stands.
        """
        workspace = self.house.workspace(request)
        known = workspace.projects()
        if not known:
            example.example_project(workspace)
            known = workspace.projects()
        wanted = name or request.query_params.get("project", "")
        shown = self.show(workspace.project(wanted if wanted in known else known[0]))
        tab = request.query_params.get("tab", "")
        return shown | ({self.tabs: gr.Tabs(selected=tab)} if tab in self.parts else {})

    def do(self, name: str, turns: list[int], event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A button of the header. It counts up `turns`, so that a tick that began before does not draw over it."""
        turns[0] += 1
        workspace = self.house.workspace(request)
        match event.do:
            case "open":
                return self.show(workspace.project(event.value))
            case "create":
                project = workspace.project(event.name.strip(), create=True)
                Store(project.data).close()
                return self.show(project)
            case "train-example":
                project = workspace.project(name)
                self.parts["train"].start_now(project)
                return {**self.show(project), self.tabs: gr.Tabs(selected="train")}
        return {}

    def follow(self, name: str, request: gr.Request) -> dict[Any, Any]:
        """A whole recipe was taken on the Train tab: the knobs of the other tabs are in it too."""
        project = self.house.project(request, name)
        compare = self.parts["compare"].knobs.items()
        wanted = self.recipes.of(project).compare
        return {**self.parts["generate"].show(project), **{knob: getattr(wanted, name) for name, knob in compare}}

    def show(self, project: Project) -> dict[Any, Any]:
        """The whole page of a project, from disk."""
        facts = self.facts(project)
        first = self.is_first(project, facts)
        update = {
            self.header: self._header(project, facts, first),
            self.project: project.name,
            self.stamp: self._stamp(project, ""),
            self.steps: self.runs.steps(project),
            self.tabs: gr.Tabs(selected="data" if first else views.opens_on(facts)),
        }
        for part in self.parts.values():
            update |= part_of(part.notice, part.show, project)
        return update

    def look(self, name: str, stamp: str, steps: str, at: list[str], request: gr.Request) -> dict[Any, Any]:
        """Once a second from every open page, which shows what `stamp` and `steps` are of: whether that is all."""
        if not name:
            return {}
        project = self.house.project(request, name)
        if self._stamp(project, at[0]) != stamp:
            return {self.news: str(time.time_ns())}
        return {self.stepped: str(time.time_ns())} if self.runs.steps(project) != steps else {}

    def tick(self, given: dict, request: gr.Request) -> dict[Any, Any]:
        """What changed since the page's stamp; nothing when nothing did.

        An answer can reach the browser after that of a click which came later. It then brings the stamp of a page
        where nobody had clicked, and the next tick draws what was clicked again.
        """
        if not given[self.project]:
            return {}
        project = self.house.project(request, given[self.project])
        now = self._stamp(project, given[self.parts["train"].at][0])
        if now == given[self.stamp]:
            return {}
        turn = given[self.turns][0]
        update = self._how_far(project) | {self.stamp: now}
        for part in self.parts.values():
            update |= part_of(part.notice, part.tick, project, given.get(part.at, ""))
        return update if turn == given[self.turns][0] else {}

    def step(self, name: str, turns: list[int], at: list[str], request: gr.Request) -> dict[Any, Any]:
        """What a step of a training changes."""
        turn = turns[0]
        project = self.house.project(request, name)
        update = self._how_far(project) | self.parts["train"].side.step(project, at)
        return update if turn == turns[0] else {}

    # --- what it reads

    def _stamp(self, project: Project, looked_at: str) -> str:
        """Of all that a tick draws; `looked_at` are the runs that the Train tab shows."""
        _, usable = views.trainings(self.runs.of_kind(project, "train"))
        compared = bool(usable) and was_compared(usable[0])
        preparing = self.parts["train"].preparation(project)
        jobs = self.runs.stamp(project)
        return f"{project.name}|{counts_stamp(project)}|{jobs}|{compared}|{preparing}|{looked_at}"

    def _how_far(self, project: Project) -> dict[Any, Any]:
        """What every tick draws."""
        steps = self.runs.steps(project)
        facts = self.facts(project)
        return {self.header: self._header(project, facts, self.is_first(project, facts)), self.steps: steps}

    def _header(self, project: Project, facts: views.Facts, first: bool) -> str:
        projects = project.workspace.projects()
        words = self.parts["train"].duration(project) if first else ""
        return views.header(project.name, projects, self.machine, facts, words)

    @staticmethod
    def is_first(project: Project, facts: views.Facts) -> bool:
        """The example as it was installed: nobody has trained anything yet."""
        return project.name == example.NAME and bool(facts.rows) and facts.training is None

    def facts(self, project: Project) -> views.Facts:
        with Store(project.data) as store:
            counts = store.counts()
        training, usable = views.trainings(self.runs.of_kind(project, "train"))
        exported = self.runs.newest(project, "export")
        fresh = exported and usable and exported[0].id > usable[0].id
        return views.Facts(
            rows=counts.rows,
            to_review=counts.to_review,
            blocking=self._blocking(project, counts.rows),
            training=training,
            trained=usable[1] if usable else None,
            compared=bool(usable) and was_compared(usable[0]),
            exported=exported[1] if fresh else None,
        )

    def _blocking(self, project: Project, rows: int) -> tuple[str, ...]:
        if not 0 < rows <= _CHECKED_ROWS:
            return ()
        key = (project.data, counts_stamp(project))
        if key not in self._checked:
            with Store(project.data) as store:
                found = quality.check(store, look=0).findings
            if len(self._checked) > 100:
                self._checked.clear()
            self._checked[key] = tuple(f.text for f in found if f.kind == "blocking")
        return self._checked[key]


def build(house: House) -> gr.Blocks:
    return Page(house).build()


def workspace_of(house: House) -> Workspace:
    return Workspace(house.home)
