"""Export: where it should run, one button, the checks as they pass, and what to type afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from ft_core import jobs, recipe
from ft_core.errors import FTError
from ft_core.events import JobView, State
from ft_core.export import start
from ft_core.train import methods, models
from ft_core.workspace import Job, Project

from . import say
from .errors import told
from .frame import Frame, Recipes
from .panel import draw, panel
from .runs import usable
from .session import hub_token

_GGUF = {"Q4_K_M": "4-bit, smallest", "Q8_0": "8-bit, hardly a loss", "F16": "16-bit, as trained"}
_BYTES_A_PARAMETER = {"F16": 2.0, "Q8_0": 1.08, "Q4_K_M": 0.78}
"""Of a small model, whose embeddings weigh most; larger ones come to 0.6 at 4 bits."""


@dataclass(frozen=True)
class Place:
    """Where a model can be taken, and what is made for that."""

    key: str
    label: str
    to: tuple[str, ...]


class ExportTab:
    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        with gr.Row(elem_classes="ft-cols"):
            with gr.Column(elem_classes="ft-in"):
                self.where = self.at = gr.Radio(
                    [], label="Where should it run?", elem_id="where", elem_classes="ft-list"
                )
                self.type = gr.Radio([(f"{name}, {text}", name) for name, text in _GGUF.items()], value="Q8_0",
                                     label="Weights stored as", visible=False, elem_id="gguf-type",
                                     elem_classes="ft-list")  # fmt: skip
                self.name = gr.Textbox(label="Name of the model", elem_id="export-name", max_lines=1)
                self.repo = gr.Textbox(label="Repository on the Hub (private)", placeholder="user/name, or empty",
                                       visible=False, elem_id="export-repo")  # fmt: skip
                self.go = gr.Button("Make it", variant="primary", elem_id="export")
                self.notice = panel(elem_id="export-notice")
            with gr.Column(elem_classes="ft-out"):
                self.made = panel(elem_id="made")
                self.stop = gr.Button("Stop", size="sm", elem_id="stop-export", visible=False)
        self.shown = [self.where, self.type, self.name, self.repo, self.go, self.notice, self.made, self.stop]
        tell = told(self.notice)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        name = frame.project
        self.where.input(tell(self.choose), [name, self.where], [self.type, self.repo, self.go, self.notice], **quiet)
        self.go.click(tell(self.make), {name, self.where, self.type, self.name, self.repo}, self.shown, **quiet)
        self.stop.click(tell(self.end), [name], [self.notice, self.stop], **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        first = self._places(project)[0].key
        return {
            **self.tick(project, first),
            self.where: gr.Radio(self._choices(project), value=first),
            self.type: gr.Radio(visible=False),
            self.repo: gr.Textbox(visible=False),
            self.name: _model_name(project),
            self.notice: "",
        }

    def tick(self, project: Project, at: str | None) -> dict[Any, Any]:
        """`at` is the chosen place; what is offered follows from the newest run."""
        newest = self.frame.runs.newest(project, "export")
        trained = self._trained(project)
        running = bool(newest) and not newest[1].state.over
        text = "Making it" if running else _go_words(at)
        return {
            self.where: gr.Radio(self._choices(project)),
            self.go: gr.Button(text, interactive=bool(trained) and not running),
            self.made: export_panel(project, newest, bool(trained)),
            self.stop: gr.Button(visible=running),
        }

    def _choices(self, project: Project) -> list[tuple[str, str]]:
        return [(place.label, place.key) for place in self._places(project)]

    def _places(self, project: Project) -> list[Place]:
        base = self.recipes.of(project).model.base
        parameters = next((m.parameters for m in models.catalog() if m.base == base), 0)

        def weight(kind: str) -> str:
            return f", about {say.size(parameters * _BYTES_A_PARAMETER[kind])}" if parameters else ""

        trained = self._trained(project)
        adapter = trained is None or methods.leaves_adapter(recipe.load(trained.recipe).train.method)
        found = [
            Place("ollama", f"Ollama · 4-bit{weight('Q4_K_M')}", ("gguf:Q4_K_M", "ollama")),
            Place("gguf", "llama.cpp, LM Studio · one GGUF file", ()),
            Place("merged", f"transformers · merged model{weight('F16')}", ("merged",)),
        ]
        if adapter:
            found.append(Place("adapter", "the adapter only · a few MB, needs its base", ("adapter",)))
        what = "adapter" if adapter else "model"
        return [*found, Place("hub", f"Hugging Face Hub · the {what}, in a private repository", ("hub",))]

    def _trained(self, project: Project) -> Job | None:
        found = self.frame.runs.of_kind(project, "train")
        return next((job for job, view in found if usable(view)), None)

    # --- what a person does

    def choose(self, name: str, where: str) -> dict[Any, Any]:
        return {self.type: gr.Radio(visible=where == "gguf"), self.repo: gr.Textbox(visible=where == "hub"),
                self.go: gr.Button(_go_words(where))}  # fmt: skip

    def make(self, given: dict, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, given[self.frame.project])
        trained = self._trained(project)
        if trained is None:
            raise FTError("Nothing is trained yet.", "Train first; it takes minutes.")
        where = given[self.where]
        place = next((p for p in self._places(project) if p.key == where), None)
        if place is None:
            raise FTError("It is not said where the model should run.", "Choose one of the places.")
        to = place.to or (f"gguf:{given[self.type]}",)
        token = hub_token(request, self.frame.house) if where == "hub" else ""
        if where == "hub" and not token and self.frame.house.on_space:
            raise FTError("Pushing to the Hub needs to know who you are.", "Sign in at the top of the page.")
        options = {"repo": (given[self.repo] or "").strip()} if where == "hub" else {}
        name = (given[self.name] or "").strip() or _model_name(project)
        start.start(project, trained, list(to), name=name, options=options, token=token)
        return self.tick(project, where)

    def end(self, name: str, request: gr.Request) -> dict[Any, Any]:
        newest = self.frame.runs.newest(self.frame.open(request, name), "export")
        if newest:
            jobs.stop(newest[0])
        return {self.stop: gr.Button("Stopping …")}


def export_panel(project: Project, newest: tuple[Job, JobView] | None, trained: bool) -> str:
    """An export as it is made, and what to do with it when it is."""
    if newest is None:
        return draw("made_empty", trained=trained)
    job, view = newest
    wanted = start.Wanted.of(job)
    files = []
    for path in map(Path, view.result.get("files", [])):
        if path.is_file() and path.is_relative_to(job.export):
            inside = path.relative_to(job.export)
            query = urlencode({"project": project.name, "job": job.id, "file": str(inside)})
            files.append((str(inside), path.stat().st_size, f"gradio_api/ft/made?{query}"))
    files.sort(key=lambda f: (not f[0].endswith(".zip"), f[0]))
    return draw("made", view=view, wanted=wanted, files=files, commands=commands(wanted, view),
                finished=view.state is State.FINISHED)  # fmt: skip


def commands(wanted: start.Wanted, view: JobView) -> list[tuple[str, str]]:
    """What to type afterwards: a word on it, and the line."""
    if view.state is not State.FINISHED:
        return []
    stem = wanted.file_stem.lower()
    names = [Path(f).name for f in view.result.get("files", [])]
    gguf = next((n for n in names if n.endswith(".gguf")), "")
    found = []
    if "ollama" in wanted.to:
        if view.result.get("ollama"):
            found.append(("It is in your Ollama already:", f"ollama run {view.result['ollama']}"))
        found.append(("In the folder of the unpacked zip:", f"ollama create {stem} -f Modelfile && ollama run {stem}"))
    elif gguf:
        found.append(("With llama.cpp:", f"llama-cli -m {gguf} -cnv"))
    if "merged" in wanted.to:
        found.append(("In Python:", f"transformers.pipeline('text-generation', '{view.result.get('path', '')}')"))
    return found


def _go_words(where: str | None) -> str:
    return "Push it" if where == "hub" else "Make it, about 1 min"


def _model_name(project: Project) -> str:
    return "-".join(project.name.lower().split())
