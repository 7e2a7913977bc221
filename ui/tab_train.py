"""Train: what will happen on the left; what does happen, on the right, is run_side.py."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import gradio as gr

from ft_core import recipe
from ft_core.errors import FTError
from ft_core.machine import Machine, this_machine
from ft_core.recipe import BUILTIN, DataRecipe, Recipe, TrainRecipe
from ft_core.train import extra, models, preflight, start
from ft_core.train.preflight import Preflight
from ft_core.workspace import Job, Project

from . import knobs, say
from .errors import told
from .frame import Frame, Recipes, counts_stamp
from .panel import draw, panel
from .recipe_file import RecipeFile
from .run_list import Looking
from .run_side import RunSide

_HEADINGS = {
    "What learns": ("method", "learns", "layers", "rank", "alpha", "dropout", "beta"),
    "How much and how fast": ("epochs", "steps", "learning_rate", "warmup", "schedule", "batch_size", "patience",
                              "keep"),
    "Memory and precision": ("micro_batch", "max_length", "precision"),
}  # fmt: skip
_REST = "Along the way"
"""The heading of every field that the others do not name."""
_NOT_OF_A_PRESET = ("method", "learns", "layers", "beta", "probes", "mirror", "extra")
"""What is learnt and where it goes is the person's; a preset says how thoroughly."""
_AFTER = "Train after this one"
_MOST_WAITING = 5
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
                self.side = RunSide(frame)
        self.at = self.side.at
        self._left = [self.base, self.preset, self.heldout, *self.knobs.values(), *self.file.shown,
                      *self._forecast()]  # fmt: skip
        self.shown = [*self._left, self.preparing, *self.side.shown]
        self._listen()

    def _inputs(self) -> None:
        self.base = gr.Dropdown(base_models(this_machine(), TrainRecipe()), label="Base model", filterable=True,
                                allow_custom_value=True, elem_id="base",
                                info="Or the id of any chat model on the Hugging Face Hub.")  # fmt: skip
        self.preset = gr.Radio(list(recipe.PRESETS), label="How thorough", elem_id="preset", elem_classes="ft-list")
        self.knobs = {}
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            for heading, names in headings().items():
                panel(draw("heading", text=heading))
                with gr.Group():
                    self.knobs |= {name: knobs.knob(TrainRecipe, name) for name in names}
                    if heading == _REST:
                        self.heldout = knobs.knob(DataRecipe, "heldout")
        self.file = RecipeFile(self.frame, self.recipes)
        self.preparing = panel(elem_id="preparing")
        self.forecast = panel(elem_id="forecast")
        self.go = gr.Button("Train", variant="primary", elem_id="train")
        self.notice = panel(elem_id="train-notice")

    def _forecast(self) -> list[Any]:
        return [self.forecast, self.go, self.notice]

    def _listen(self) -> None:
        tell = told(self.notice)
        name = self.frame.project
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        follows = [self.file.text, self.file.files, *self._forecast()]
        self.preset.input(tell(self.take_preset), [name, self.preset], [*self.knobs.values(), *follows], **quiet)
        self.base.input(tell(self.take_base), [name, self.base], [self.preset, *follows], **quiet)
        for field, widget in {**self.knobs, "heldout": self.heldout}.items():
            gr.on([widget.input], tell(self._take(field)), [name, widget], [self.base, self.preset, *follows], **quiet)
        self.go.click(tell(self.train), [name, self.go, self.at], self.shown, **quiet)
        self.forecast.do(tell(self.mend), [name], self._left, **quiet)
        self.side.listen(tell, self.shown, self.repeat)
        self.file.listen(self.take_whole, self.shown)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        anew = [""]
        return {**self._settings(project), **self._prepared(project), self.notice: "", self.file.notice: "",
                self.at: anew, **self.side.show(project, anew)}  # fmt: skip

    def tick(self, project: Project, at: list[str]) -> dict[Any, Any]:
        return {**self._look(project, self.recipes.of(project)), **self._prepared(project),
                **self.side.tick(project, at)}  # fmt: skip

    def preparation(self, project: Project) -> str:
        """Changes as the built-in model comes."""
        told = models.prepare_status(project.workspace)
        return "" if told.state == "ready" else f"{told.state} {told.share:.2f} {told.what}"

    def duration(self, project: Project) -> str:
        """How long a training by the project's recipe takes here, in words; two minutes before that can be told."""
        time = self._preflight(project, self.recipes.of(project)).estimate
        return say.duration(time.seconds) if time else "2 min"

    def _settings(self, project: Project) -> dict[Any, Any]:
        """The left side as the project's recipe has it."""
        wanted = self.recipes.of(project)
        return {
            self.base: self._bases(wanted),
            self.preset: gr.Radio(self._choices(project, wanted), value=preset_of(wanted)),
            self.heldout: wanted.data.heldout,
            **self._knob_values(wanted),
            **self.file.show(project, wanted),
            **self._look(project, wanted),
        }

    @staticmethod
    def _bases(wanted: Recipe) -> gr.Dropdown:
        """The picker: what fits follows from the other knobs."""
        return gr.Dropdown(base_models(this_machine(), wanted.train), value=wanted.model.base)

    def _prepared(self, project: Project) -> dict[Any, Any]:
        return {self.preparing: draw("preparing", told=models.prepare_status(project.workspace))}

    def _knob_values(self, wanted: Recipe) -> dict[Any, Any]:
        return {widget: knobs.shown(getattr(wanted.train, name)) for name, widget in self.knobs.items()}

    def _preflight(self, project: Project, wanted: Recipe) -> Preflight:
        """Kept while neither rows nor knobs change: it reads every row, up to a number of them."""
        ready = models.prepare_status(project.workspace).state
        key = (project.path, counts_stamp(project), wanted, ready)
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
        time = f", about {say.duration(look.estimate.seconds)}" if look.estimate else ""
        text = f"{_AFTER if self._under_way(project) else 'Train'}{time}"
        button = gr.Button(text, interactive=not blocked)
        return {self.forecast: draw("forecast", look=look, machine=self._memory), self.go: button}

    @cached_property
    def _memory(self) -> int:
        machine = this_machine()
        return machine.gpu_memory_bytes or machine.memory_bytes

    def _under_way(self, project: Project) -> int:
        """How many trainings run or wait."""
        return sum(not view.state.over for _, view in self.frame.runs.of_kind(project, "train"))

    # --- what a person does

    def take_preset(self, name: str, preset: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        wanted = with_preset(self.recipes.of(project), preset)
        self.recipes.keep(project, wanted)
        return {**self._knob_values(wanted), **self.file.show(project, wanted), **self._look(project, wanted)}

    def take_base(self, name: str, base: str, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        wanted = self.recipes.of(project)
        wanted = replace(wanted, model=replace(wanted.model, base=(base or BUILTIN).strip()))
        wanted = self._allowed(project, recipe.checked(wanted))
        self.recipes.keep(project, wanted)
        return {self.preset: gr.Radio(self._choices(project, wanted)), **self.file.show(project, wanted),
                **self._look(project, wanted)}  # fmt: skip

    def take_whole(self, project: Project, wanted: Recipe) -> dict[Any, Any]:
        """A recipe as a file has it; every knob follows."""
        self.recipes.keep(project, self._allowed(project, wanted))
        return self._settings(project)

    def repeat(self, project: Project, job: Job) -> dict[Any, Any]:
        """The recipe of a run as the project's."""
        return self.take_whole(project, recipe.rebase(recipe.load(job.recipe), job.path, project.path))

    def _allowed(self, project: Project, wanted: Recipe) -> Recipe:
        """Raises FTError for what a stranger may not ask of a Space's disk, and for arguments that do not exist."""
        extra.check(wanted.train.extra)
        base = wanted.model.base
        if self.frame.house.on_space and base != BUILTIN and (project.path / base).exists():
            raise FTError("On a Space a base model is one of the list or of the Hub.")
        return wanted

    def _take(self, field: str):
        def take(name: str, value: Any, request: gr.Request) -> dict[Any, Any]:
            project = self.frame.open(request, name)
            wanted = self.recipes.of(project)
            section = "data" if field == "heldout" else "train"
            wanted = replace(wanted, **{section: knobs.taken(getattr(wanted, section), field, value)})
            self.recipes.keep(project, self._allowed(project, wanted))
            return {self.base: self._bases(wanted), self.preset: preset_of(wanted),
                    **self.file.show(project, wanted), **self._look(project, wanted)}  # fmt: skip

        return take

    def mend(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A button beside a finding: the value of a knob that takes it away."""
        project = self.frame.open(request, name)
        wanted = self.recipes.of(project)
        return self.take_whole(project, replace(wanted, train=knobs.taken(wanted.train, event.field, event.value)))

    def train(self, name: str, said: str, at: list[str], request: gr.Request) -> dict[Any, Any]:
        """`said` is what stood on the button: only who was told that this one waits gets one that waits."""
        project = self.frame.open(request, name)
        self.start_now(project, waits=said.startswith(_AFTER))
        at[0] = str(replace(Looking.of(at[0]), run=""))
        return {**self._look(project, self.recipes.of(project)), **self.side.show(project, at)}

    def start_now(self, project: Project, waits: bool = False) -> Job:
        """Starts a training by the project's recipe. Raises FTError when it cannot begin, and when one is under way
        that it does not want to wait for."""
        under_way = self._under_way(project)
        if under_way and not waits:
            raise FTError("A training is under way in this project.", "Wait for it, or stop it first.")
        if under_way > _MOST_WAITING:
            raise FTError(f"{under_way - 1} trainings wait already.", "Cancel one of them, or wait for the first.")
        wanted = self.recipes.of(project)
        self.recipes.keep(project, wanted)
        return start.start(project, wanted)


def headings() -> dict[str, list[str]]:
    """Every field of a training under its heading, in the order of the recipe."""
    known = {name: heading for heading, names in _HEADINGS.items() for name in names}
    found: dict[str, list[str]] = {heading: [] for heading in (*_HEADINGS, _REST)}
    for field in fields(TrainRecipe):
        found[known.get(field.name, _REST)].append(field.name)
    return found


def base_models(machine: Machine, train: TrainRecipe) -> list[tuple[str, str]]:
    """What the picker offers: name, licence and whether this training fits the machine; and what a recipe calls it."""
    found = []
    for model in models.catalog():
        fit, wanted = models.fit(model, train, machine)
        fits = fit if fit == "fits" else f"{fit}, wants {say.memory(wanted)}"
        parts = [model.title, model.licence, *(["asks for access"] if model.gated else []), fits]
        found.append((" · ".join(parts), model.base))
    return found


def with_preset(wanted: Recipe, name: str) -> Recipe:
    """The recipe with the preset's training; what a preset does not decide is kept."""
    kept = {f.name: getattr(wanted.train, f.name) for f in fields(TrainRecipe) if f.name in _NOT_OF_A_PRESET}
    return replace(wanted, train=replace(recipe.preset(name).train, **kept))


def preset_of(wanted: Recipe) -> str | None:
    """The preset that the recipe's training is, None when somebody turned a knob."""
    return next((name for name in recipe.PRESETS if with_preset(wanted, name) == wanted), None)
