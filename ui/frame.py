"""What all tabs share, and what a tab is to the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gradio as gr

from ft_core import recipe
from ft_core.data import audit
from ft_core.data.store import Store
from ft_core.recipe import Recipe
from ft_core.workspace import Project, write_whole

from .runs import Runs
from .session import House


@dataclass(frozen=True)
class Frame:
    house: House
    runs: Runs
    project: gr.Textbox
    """Hidden: the name of the open project, kept by the browser so that a restart of the app does not lose it."""

    def open(self, request: gr.Request, name: str) -> Project:
        return self.house.project(request, name)


class Tab(Protocol):
    notice: gr.HTML
    """Where the tab says what went wrong."""
    at: gr.Textbox | gr.State | None
    """Hidden: the run that the page looks at on this tab; `tick` is given its value."""
    shown: list[Any]
    """The components that `show` fills, the notice among them."""

    def show(self, project: Project) -> dict[Any, Any]:
        """Everything the tab shows of a project, from disk: on load, and when another project is opened."""

    def tick(self, project: Project, at: Any) -> dict[Any, Any]:
        """The part of it that jobs change; never a component that a person types into."""


@dataclass
class Recipes:
    """The project's recipe.yaml: the knobs as the person left them."""

    default: Recipe = field(default_factory=lambda: recipe.preset("Quick look"))
    _read: dict[Path, tuple[str, Recipe]] = field(default_factory=dict)

    def of(self, project: Project) -> Recipe:
        """Every poll asks; what a file says is understood once."""
        if not project.recipe.exists():
            return self.default
        text = project.recipe.read_text(encoding="utf-8")
        if self._read.get(project.path, ("",))[0] != text:
            self._read[project.path] = (text, recipe.parse(text, where=str(project.recipe)))
        return self._read[project.path][1]

    def keep(self, project: Project, wanted: Recipe) -> None:
        write_whole(project.recipe, recipe.dump(wanted))


def counts_stamp(project: Project) -> str:
    """Changes with every operation on the rows, and when their check found something."""
    if not project.data.exists():
        return ""
    with Store(project.data) as store:
        return f"{store.stamp} {audit.stamp(store)}"
