"""Train: what will happen on the left, what does happen on the right. The right side only reads events."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import gradio as gr

from ft_core import jobs, recipe
from ft_core.errors import FTError
from ft_core.events import JobView, State
from ft_core.machine import Machine, this_machine
from ft_core.recipe import BUILTIN, DataRecipe, Recipe, TrainRecipe
from ft_core.train import models, preflight, start
from ft_core.train.preflight import Preflight
from ft_core.workspace import Job, Project

from . import knobs, say
from .chart import chart, curves
from .errors import told
from .frame import Frame, Recipes, counts_stamp
from .panel import draw, panel
from .run_view import figures_panel, run_panel, samples_panel, title

_KNOBS = ("epochs", "steps", "learning_rate", "rank", "alpha", "dropout", "batch_size", "micro_batch", "max_length",
          "warmup", "schedule", "precision", "evaluate_every", "save_every", "probes", "seed")  # fmt: skip
_RUNS_SHOWN = 12
_ESTIMATED_ROWS = 20_000
"""Up to here the page looks at every row by itself, for what stands in the way and for the time of each preset."""


class TrainTab:
    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self._looked: dict[tuple[Any, ...], Preflight] = {}
        with gr.Row(elem_classes="ft-cols"):
            with gr.Column(elem_classes="ft-in"):
                self._inputs()
            with gr.Column(elem_classes="ft-out"):
                self._outputs()
        self.shown = [self.base, self.preset, self.heldout, *self.knobs.values(), *self._forecast(), *self._live()]
        self._listen()

    def _inputs(self) -> None:
        self.base = gr.Dropdown(base_models(this_machine()), label="Base model", filterable=True,
                                allow_custom_value=True, elem_id="base",
                                info="Or the id of any chat model on the Hugging Face Hub.")  # fmt: skip
        self.preset = gr.Radio(list(recipe.PRESETS), label="How thorough", elem_id="preset", elem_classes="ft-list")
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            self.knobs = {name: knobs.knob(TrainRecipe, name) for name in _KNOBS}
            self.heldout = knobs.knob(DataRecipe, "heldout")
        self.preparing = panel(elem_id="preparing")
        self.forecast = panel(elem_id="forecast")
        self.go = gr.Button("Train", variant="primary", elem_id="train")
        self.notice = panel(elem_id="train-notice")

    def _outputs(self) -> None:
        self.chosen = self.at = gr.Textbox(visible="hidden", elem_id="run")
        with gr.Row(elem_classes="ft-status"):
            self.state = panel(elem_id="run-state")
            self.stop = gr.Button("Stop", size="sm", elem_id="stop", visible=False, scale=0)
            self.resume = gr.Button("Resume", size="sm", elem_id="resume", visible=False, scale=0)
        self.figures = panel(elem_id="figures")
        self.chart = chart()
        self.samples = panel(elem_id="samples")
        self.runs = panel(elem_id="runs")

    def _forecast(self) -> list[Any]:
        return [self.forecast, self.go, self.notice]

    def _live(self) -> list[Any]:
        return [self.preparing, self.chosen, self.state, self.stop, self.resume, self.figures, self.chart,
                self.samples, self.runs]  # fmt: skip

    def _listen(self) -> None:
        tell = told(self.notice)
        name = self.frame.project
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self.preset.input(tell(self.take_preset), [name, self.preset],
                          [*self.knobs.values(), *self._forecast()], **quiet)  # fmt: skip
        self.base.input(tell(self.take_base), [name, self.base], [self.preset, *self._forecast()], **quiet)
        for field, widget in {**self.knobs, "heldout": self.heldout}.items():
            gr.on([widget.input], tell(self._take(field)), [name, widget],
                  [self.preset, *self._forecast()], **quiet)  # fmt: skip
        everything = [*self._forecast(), *self._live()]
        self.go.click(tell(self.train), [name], everything, **quiet)
        self.stop.click(tell(self.end), [name, self.chosen], everything, **quiet)
        self.resume.click(tell(self.go_on), [name, self.chosen], everything, **quiet)
        self.runs.do(tell(self.pick), [name], everything, **quiet)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        wanted = self.recipes.of(project)
        return {
            self.base: wanted.model.base,
            self.preset: gr.Radio(self._choices(project, wanted), value=preset_of(wanted)),
            self.heldout: wanted.data.heldout,
            **self._knob_values(wanted),
            **self._look(project, wanted),
            self.notice: "",
            **self._run(project, ""),
        }

    def tick(self, project: Project, at: str) -> dict[Any, Any]:
        return {**self._look(project, self.recipes.of(project)), **self._run(project, at)}

    def preparation(self, project: Project) -> str:
        """Changes as the built-in model comes."""
        told = models.prepare_status(project.workspace)
        return "" if told.state == "ready" else f"{told.state} {told.share:.2f} {told.what}"

    def duration(self, project: Project) -> str:
        """How long a training by the project's recipe takes here, in words; two minutes before that can be told."""
        time = self._preflight(project, self.recipes.of(project)).estimate
        return say.duration(time.seconds) if time else "2 min"

    def _knob_values(self, wanted: Recipe) -> dict[Any, Any]:
        return {widget: knobs.shown(getattr(wanted.train, name)) for name, widget in self.knobs.items()}

    def _preflight(self, project: Project, wanted: Recipe) -> Preflight:
        """Kept while neither rows nor knobs change: it reads every row, up to a number of them."""
        ready = models.prepare_status(project.workspace).state
        key = (project.path, counts_stamp(project), recipe.dump(wanted), ready)
        if key not in self._looked:
            if len(self._looked) > 50:
                self._looked.clear()
            self._looked[key] = preflight.preflight(project, wanted, preflight.LOOK)
        return self._looked[key]

    def _choices(self, project: Project, wanted: Recipe) -> list[tuple[str, str]]:
        """The presets with the time each takes here."""
        rows = self._preflight(project, wanted).rows
        found = []
        for name in recipe.PRESETS:
            time = None
            if 0 < rows <= _ESTIMATED_ROWS:
                time = self._preflight(project, with_preset(wanted, name)).estimate
            found.append((f"{name}, {say.duration(time.seconds)}" if time else name, name))
        return found

    def _look(self, project: Project, wanted: Recipe) -> dict[Any, Any]:
        try:
            look = self._preflight(project, wanted)
        except FTError as error:  # such as a base model that is not there
            return {self.forecast: draw("error", message=error.message, hint=error.hint),
                    self.go: gr.Button("Train", interactive=False)}  # fmt: skip
        blocked = any(f.kind == "blocking" for f in look.findings)
        running = self.frame.runs.newest(project, "train")
        if running and not running[1].state.over:
            button = gr.Button("Training is under way", interactive=False)
        else:
            time = f", about {say.duration(look.estimate.seconds)}" if look.estimate else ""
            button = gr.Button(f"Train{time}", interactive=not blocked)
        return {self.forecast: draw("forecast", look=look, machine=self._memory), self.go: button}

    @cached_property
    def _memory(self) -> int:
        machine = this_machine()
        return machine.gpu_memory_bytes or machine.memory_bytes

    def _run(self, project: Project, chosen: str) -> dict[Any, Any]:
        """The right side. `chosen` is a job's id, '' the newest."""
        found = self.frame.runs.of_kind(project, "train")
        told = models.prepare_status(project.workspace)
        update: dict[Any, Any] = {self.preparing: draw("preparing", told=told)}
        newest = found[0][0].id if found else ""
        job, view = next(((j, v) for j, v in found if j.id == chosen), found[0] if found else (None, JobView()))
        over = view.state.over
        update |= {
            self.chosen: chosen if chosen != newest else "",
            self.state: run_panel(view) if job else draw("run_empty"),
            self.figures: figures_panel(view),
            self.stop: gr.Button(visible=bool(job) and not over),
            self.resume: gr.Button(visible=bool(job) and over and view.state is not State.FINISHED),
            self.chart: curves(view),
            self.samples: samples_panel(view),
            self.runs: draw("runs", runs=[(len(found) - i, j, v, title(v)) for i, (j, v) in
                                          enumerate(found[:_RUNS_SHOWN])], chosen=job.id if job else ""),
        }  # fmt: skip
        return update

    # --- what a person does

    def take_preset(self, name: str, preset: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        wanted = with_preset(self.recipes.of(project), preset)
        self.recipes.keep(project, wanted)
        return {**self._knob_values(wanted), **self._look(project, wanted)}

    def take_base(self, name: str, base: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        base = (base or BUILTIN).strip()
        if self.frame.house.on_space and base != BUILTIN and (project.path / base).exists():
            raise FTError("On a Space a base model is one of the list or of the Hub.")
        wanted = self.recipes.of(project)
        wanted = recipe.from_dict(recipe.to_dict(replace(wanted, model=replace(wanted.model, base=base))))
        self.recipes.keep(project, wanted)
        return {self.preset: gr.Radio(self._choices(project, wanted)), **self._look(project, wanted)}

    def _take(self, field: str):
        def take(name: str, value: Any, request: gr.Request) -> dict[Any, Any]:
            project = self.frame.open(request, name)
            wanted = self.recipes.of(project)
            section = "data" if field == "heldout" else "train"
            wanted = replace(wanted, **{section: knobs.taken(getattr(wanted, section), field, value)})
            self.recipes.keep(project, wanted)
            return {self.preset: preset_of(wanted), **self._look(project, wanted)}

        return take

    def train(self, name: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        self.start_now(project)
        return {**self._look(project, self.recipes.of(project)), **self._run(project, "")}

    def start_now(self, project: Project) -> Job:
        """Starts a training by the project's recipe. Raises FTError when one is under way, or it cannot begin."""
        running = self.frame.runs.newest(project, "train")
        if running and not running[1].state.over:
            raise FTError("A training is under way in this project.", "Wait for it, or stop it first.")
        wanted = self.recipes.of(project)
        self.recipes.keep(project, wanted)
        return start.start(project, wanted)

    def end(self, name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        jobs.stop(self._job(project, chosen))
        return {self.stop: gr.Button("Stopping …", interactive=False)}

    def go_on(self, name: str, chosen: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        jobs.resume(self._job(project, chosen))
        return self._run(project, chosen)

    def pick(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        return self._run(project, event.job)

    def _job(self, project: Project, chosen: str) -> Job:
        if chosen:
            return project.job(chosen)
        newest = self.frame.runs.newest(project, "train")
        if newest is None:
            raise FTError("Nothing was trained here yet.")
        return newest[0]


def base_models(machine: Machine) -> list[tuple[str, str]]:
    """What the picker offers: name, licence and whether it fits this machine; and what a recipe calls it."""
    have = machine.gpu_memory_bytes or machine.memory_bytes
    found = []
    for model in models.catalog():
        fits = "fits" if model.lora_gpu_gb * 1e9 <= have else f"wants {model.lora_gpu_gb:.0f} GB"
        parts = [model.title, model.licence, *(["asks for access"] if model.gated else []), fits]
        found.append((" · ".join(parts), model.base))
    return found


def with_preset(wanted: Recipe, name: str) -> Recipe:
    """The recipe with the preset's training; the person's prompts to watch are kept."""
    return replace(wanted, train=replace(recipe.preset(name).train, probes=wanted.train.probes))


def preset_of(wanted: Recipe) -> str | None:
    """The preset that the recipe's training is, None when somebody turned a knob."""
    return next((name for name in recipe.PRESETS if with_preset(wanted, name) == wanted), None)
