"""Generate: rows written by a teacher, judged as they come."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from ft_core import jobs, recipe
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import JobView, State
from ft_core.generate import synthesize
from ft_core.recipe import BUILTIN, GenerateRecipe
from ft_core.workspace import Job, Project

from . import knobs, say
from .errors import told
from .frame import Frame, Recipes
from .grid import shown
from .panel import draw, panel

_SHOWN = 12
"""Rows to review on the page at once; the Data tab has them all."""
_ENDPOINT = "endpoint"


class GenerateTab:
    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self.at = None
        with gr.Row(elem_classes="ft-cols"):
            with gr.Column(elem_classes="ft-in"):
                self._inputs()
            with gr.Column(elem_classes="ft-out"):
                self.state = panel(elem_id="generate-state")
                with gr.Row(elem_classes="ft-small-row"):
                    self.stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop-generate", scale=0)
                    self.resume = gr.Button("Resume", size="sm", visible=False, elem_id="resume-generate", scale=0)
                self.rows = panel(elem_id="arrived")
        self.shown = [self.system, self.count, self.go, self.notice, self.state, self.stop, self.resume, self.rows,
                      self.teacher, self.url, self.model]  # fmt: skip
        self._listen()

    def _inputs(self) -> None:
        self.system = gr.Textbox(label="Who is the assistant?", lines=3, max_lines=10, elem_id="generate-system",
                                 placeholder="You are the help desk of …")  # fmt: skip
        self.count = gr.Number(20, label="Rows", precision=0, minimum=1, maximum=100_000, elem_id="generate-rows")
        self.teacher = gr.Radio([("Built-in: free, on this machine, weak", BUILTIN),
                                 ("An endpoint: any OpenAI-compatible address", _ENDPOINT)],
                                value=BUILTIN, label="Teacher", elem_id="teacher", elem_classes="ft-list")  # fmt: skip
        with gr.Column(visible=False) as self.endpoint:
            self.url = gr.Textbox(label="Address", placeholder="https://api.example.com/v1", elem_id="teacher-url")
            self.model = gr.Textbox(label="Model", placeholder="empty takes the first", elem_id="teacher-model")
            self.key = gr.Textbox(
                label="Key (used for this run, kept nowhere)", type="password", elem_id="teacher-key"
            )
        with gr.Accordion("Advanced", open=False):
            self.temperature = knobs.knob(GenerateRecipe, "temperature")
            self.max_tokens = knobs.knob(GenerateRecipe, "max_tokens")
        self.go = gr.Button("Write 20 rows", variant="primary", elem_id="generate")
        self.notice = panel(elem_id="generate-notice")

    def _listen(self) -> None:
        tell = told(self.notice)
        name = self.frame.project
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        live = [self.notice, self.go, self.state, self.stop, self.resume, self.rows]
        given = {name, self.system, self.count, self.teacher, self.url, self.model, self.key, self.temperature,
                 self.max_tokens}  # fmt: skip
        self.teacher.input(lambda to: gr.Column(visible=to == _ENDPOINT), [self.teacher], [self.endpoint], **quiet)
        self.count.input(lambda n: gr.Button(_words(n)), [self.count], [self.go], **quiet)
        self.go.click(tell(self.write), given, live, **quiet)
        self.stop.click(tell(self.end), [name], [self.notice, self.stop], **quiet)
        self.resume.click(tell(self.go_on), [name, self.key], live, **quiet)
        self.rows.do(tell(self.judge), [name], live, **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        wanted = self.recipes.of(project).generate
        with Store(project.data) as store:
            system = store.system
        remote = wanted.teacher != BUILTIN
        return {
            self.system: system,
            self.count: wanted.rows or 20,
            self.teacher: _ENDPOINT if remote else BUILTIN,
            self.url: wanted.teacher if remote else "",
            self.model: wanted.model,
            self.notice: "",
            **self.tick(project),
            self.go: gr.Button(_words(wanted.rows or 20)),
        }

    def tick(self, project: Project, at: str = "") -> dict[Any, Any]:
        newest = self.frame.runs.newest(project, "generate")
        running = bool(newest) and not newest[1].state.over
        with Store(project.data) as store:
            waiting = store.count("review")
            rows = store.rows(max(0, waiting - _SHOWN), _SHOWN, "review")
        again = bool(newest) and newest[1].state in (State.STOPPED, State.FAILED, State.INTERRUPTED)
        return {
            self.go: gr.Button(interactive=not running),
            self.state: generation_panel(newest[1] if newest else None, waiting),
            self.stop: gr.Button("Stop", visible=running, interactive=True),
            self.resume: gr.Button(visible=again),
            self.rows: draw("arrived", rows=[shown(r) for r in reversed(rows)], waiting=waiting),
        }

    # --- what a person does

    def write(self, given: dict, request: gr.Request) -> dict[Any, Any]:
        """Starts the job. The key goes to the child's standard input and nowhere else."""
        project = self.frame.open(request, given[self.frame.project])
        newest = self.frame.runs.newest(project, "generate")
        if newest and not newest[1].state.over:
            raise FTError("Rows are being written already.", "Wait, or stop it first.")
        remote = given[self.teacher] == _ENDPOINT
        if remote and not (given[self.url] or "").strip():
            raise FTError("The teacher's address is empty.", "It looks like https://…/v1.")
        wanted = self.recipes.of(project)
        part = replace(wanted.generate, teacher=given[self.url].strip() if remote else BUILTIN,
                       model=(given[self.model] or "").strip() if remote else "")  # fmt: skip
        for field, widget in (
            ("rows", self.count),
            ("temperature", self.temperature),
            ("max_tokens", self.max_tokens),
        ):
            part = knobs.taken(part, field, given[widget])
        wanted = recipe.checked(replace(wanted, generate=part))
        with Store(project.data) as store:
            if (given[self.system] or "").strip() != store.system:
                store.set_system((given[self.system] or "").strip())
        self.recipes.keep(project, wanted)
        synthesize.start(project, wanted, given[self.key] or "" if remote else "")
        return self.tick(project)

    def end(self, name: str, request: gr.Request) -> dict[Any, Any]:
        jobs.stop(self._newest(self.frame.open(request, name)))
        return {self.stop: gr.Button("Stopping …", interactive=False)}

    def go_on(self, name: str, key: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        jobs.resume(self._newest(project), {"api_key": key} if key else None)
        return self.tick(project)

    def judge(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """Accept or reject one row, or all that wait."""
        project = self.frame.open(request, name)
        with Store(project.data) as store:
            if event.do == "all":
                store.set_status((r.id for r in store.rows(0, store.count("review"), "review")), "accepted")
            else:
                store.set_status([int(event.row)], "accepted" if event.do == "accept" else "rejected")
        return self.tick(project)

    def _newest(self, project: Project) -> Job:
        newest = self.frame.runs.newest(project, "generate")
        if newest is None:
            raise FTError("No rows were asked for yet.")
        return newest[0]


def generation_panel(view: JobView | None, waiting: int) -> str:
    if view is None:
        return draw("generate_empty", waiting=waiting)
    rejected = view.result.get("rejected", [])
    last = view.metrics[max(view.metrics)] if view.metrics else {}
    spent = last.get("prompt_tokens", 0) + last.get("completion_tokens", 0)
    return draw("generating", view=view, rejected=rejected, spent=spent,
                left=f"{say.duration(view.eta_s)} left" if view.eta_s else "")  # fmt: skip


def _words(count: float | None) -> str:
    return f"Write {say.amount(count)} row{'s' if count != 1 else ''}" if count else "Write rows"
