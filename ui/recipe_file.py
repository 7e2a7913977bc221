"""The project's recipe as the file it is: read, edited, opened and downloaded where the knobs are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ft_core import recipe
from ft_core.recipe import Recipe
from ft_core.workspace import Project

from .errors import told
from .frame import Frame, Recipes
from .panel import draw, panel

_SCRIPT = Path(__file__).parent / "static" / "recipe.js"


class RecipeFile:
    """`applied` changes when a whole recipe was taken, for the tabs that show other parts of it."""

    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self.applied = gr.Textbox(visible="hidden", elem_id="recipe-applied")
        with gr.Accordion("Recipe (YAML)", open=False, elem_id="recipe-file"):
            self.text = gr.Textbox(label="All that decides what a run becomes, as the file that repeats it anywhere",
                                   lines=14, max_lines=28, elem_id="recipe-text", elem_classes="ft-code")  # fmt: skip
            with gr.Row(elem_classes="ft-small-row"):
                self.apply = gr.Button("Apply", size="sm", elem_id="recipe-apply", scale=0)
                self.files = gr.HTML(
                    html_template="${value}",
                    js_on_load=_SCRIPT.read_text(encoding="utf-8"),
                    apply_default_css=False,
                    elem_id="recipe-files",
                )
            self.notice = panel(elem_id="recipe-notice")
        self.shown = [self.text, self.files, self.notice, self.applied]

    def listen(self, take: Callable[[Project, Recipe], dict[Any, Any]], outputs: list[Any]) -> None:
        """`take` keeps a recipe as the project's and shows it; it may refuse with an FTError."""
        tell = told(self.notice)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

        def applied(name: str, text: str, request: gr.Request) -> dict[Any, Any]:
            project = self.frame.open(request, name)
            before = self.recipes.of(project)
            update = take(project, recipe.parse(text or ""))
            said = draw("recipe_said", changed=changed(before, self.recipes.of(project)))
            return {**update, self.notice: said, self.applied: str(time.time_ns())}

        def opened(name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
            return {self.text: event.text, **tell(applied)(name, event.text, request)}

        self.apply.click(tell(applied), [self.frame.project, self.text], outputs, **quiet)
        self.files.do(tell(opened), [self.frame.project], outputs, **quiet)

    def show(self, project: Project, wanted: Recipe) -> dict[Any, Any]:
        href = f"gradio_api/ft/recipe?{urlencode({'project': project.name})}"
        return {self.text: recipe.dump(wanted), self.files: draw("recipe_files", href=href)}


def changed(before: Recipe, after: Recipe) -> list[str]:
    """The fields that differ."""
    old, new = recipe.to_dict(before), recipe.to_dict(after)
    return [f"{section}: {name}" for section, part in new.items() for name, value in part.items()
            if old[section][name] != value]  # fmt: skip
