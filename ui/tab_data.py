"""Data: import, read, edit and judge the rows."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from ft_core.data import audit
from ft_core.data.store import Store
from ft_core.workspace import Project

from .errors import told
from .frame import Frame, Recipes, Tab
from .grid import grid
from .importing import Importing
from .panel import panel
from .publishing import Publishing
from .readiness import Readiness


class DataTab:
    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self.at = None
        self.notice = panel(elem_id="data-notice")
        self.system = gr.Textbox(
            label="Who is the assistant? (system prompt of every row that brings none)",
            placeholder="You are the help desk of …",
            lines=1, max_lines=6, elem_id="system", elem_classes="ft-wide",
        )  # fmt: skip
        self.importing = Importing(frame)
        self.publishing = Publishing(frame, recipes)
        self.grid = grid(frame.house, recipes)
        self.readiness = Readiness(frame, recipes)
        self.parts = (self.importing, self.publishing, self.readiness)
        self.shown = [self.system, self.grid, self.notice, *(one for part in self.parts for one in part.shown)]

    def listen(self, train: Tab) -> None:
        """`train` is the tab that shows the recipe's knobs, which a finding's button may turn."""
        frame = self.frame
        tell = told(self.notice)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        gr.on([self.system.submit, self.system.blur], tell(self.keep_system), [frame.project, self.system],
              self.shown, **quiet)  # fmt: skip
        self.importing.listen(tell, self.shown, self.tick, self.filtered)
        self.publishing.listen(tell, self.shown)
        self.readiness.listen(tell, [*self.shown, *train.shown], self.tick, self.filtered, train.show)
        self.grid.changed(tell(self.recheck), [frame.project], self.shown, **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        with Store(project.data) as store:
            system = store.system
        mine = {self.system: system, self.notice: "", self.grid: self._grid(project)}
        return mine | self.importing.show(project) | self.publishing.show(project) | self.readiness.show(project)

    def tick(self, project: Project, at: str = "") -> dict[Any, Any]:
        update = {self.grid: self._grid(project)}
        for part in self.parts:
            update |= part.tick(project)
        return update

    def filtered(self, project: Project, wanted: dict[str, str]) -> dict[Any, Any]:
        """The grid with the rows of one filter alone: {"source": ...} or {"flag": ...}."""
        return {self.grid: {**self._grid(project), "only": wanted, "asked": time.time()}}

    def _grid(self, project: Project) -> dict[str, Any]:
        with Store(project.data) as store:
            return {"project": project.name, "stamp": store.stamp, "audit": audit.stamp(store)}

    # --- what a person does

    def keep_system(self, name: str, text: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        with Store(project.data) as store:
            if store.system == text.strip():
                return {}
            store.set_system(text.strip())
        return self.tick(project)

    def recheck(self, name: str, request: gr.Request) -> dict[Any, Any]:
        return self.readiness.tick(self.frame.open(request, name))
