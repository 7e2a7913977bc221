"""Train: what will happen on the left; what does happen, on the right, is run_side.py."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cached_property
from typing import Any

import gradio as gr

from ft_core import about, recipe
from ft_core.errors import FTError
from ft_core.events import State
from ft_core.machine import Machine, this_machine
from ft_core.recipe import BUILTIN, ComputeRecipe, DataRecipe, ModelRecipe, Recipe, TrainRecipe
from ft_core.train import compute, extra, further, machines, methods, models, preflight, processes, start
from ft_core.train.preflight import Preflight
from ft_core.workspace import Job, Project

from . import knobs, say
from .errors import told
from .frame import Frame, Recipes, counts_stamp
from .panel import draw, panel
from .recipe_file import RecipeFile
from .run_list import Looking
from .run_side import RunSide
from .run_view import title
from .runs import usable
from .session import secrets_of

_SECTIONS = {"data": DataRecipe, "model": ModelRecipe, "train": TrainRecipe, "compute": ComputeRecipe}
Field = tuple[str, str]
"""A section of the recipe, and a field in it."""
METHOD, ADAPTER, HARDWARE = ("train", "method"), ("model", "adapter"), ("compute", "hardware")
_HEADINGS = {
    "What learns": ("method", "learns", "layers", "rank", "alpha", "dropout", "beta"),
    "How much and how fast": ("epochs", "steps", "learning_rate", "warmup", "schedule", "batch_size", "patience",
                              "keep"),
    "Memory and speed": ("micro_batch", "max_length", "engine", "precision", "compiled"),
}  # fmt: skip
_REST = "Along the way"
"""The heading of every field of a training that the others do not name."""
_WHERE = "Where it trains"
_NOT_OF_A_PRESET = (
    "method",
    "learns",
    "layers",
    "beta",
    "engine",
    "compiled",
    "probes",
    "mirror",
    "report_to",
    "extra",
)
"""What is learnt, by what, and where it goes is the person's; a preset says how thoroughly."""
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
        self._left = [self.base, self.preset, *self.knobs.values(), *self.file.shown,
                      *self._forecast()]  # fmt: skip
        self.shown = [*self._left, self.preparing, *self.side.shown]
        self._listen()

    def _inputs(self) -> None:
        self.base = gr.Dropdown(base_models(this_machine(), TrainRecipe()), label="Base model", filterable=True,
                                allow_custom_value=True, elem_id="base",
                                info="Or the id of any chat model on the Hugging Face Hub.")  # fmt: skip
        self.preset = gr.Radio(list(recipe.PRESETS), label="How thorough", elem_id="preset", elem_classes="ft-list")
        self.knobs: dict[Field, Any] = {}
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            for heading, found in headings().items():
                panel(draw("heading", text=heading))
                with gr.Group():
                    self.knobs |= {field: _knob(field) for field in found}
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
        self.base.input(tell(self.take_base), [name, self.base], [self.preset, self.knobs[METHOD], *follows], **quiet)
        method = self.knobs[METHOD]
        for field, widget in self.knobs.items():
            gr.on([widget.input], tell(self._take(field)), [name, widget], [self.base, self.preset, method, *follows],
                  **quiet)  # fmt: skip
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
        wanted = self.recipes.of(project)
        return {self.preset: gr.Radio(self._choices(project, wanted)), **self._look(project, wanted),
                **self._prepared(project), **self.side.tick(project, at)}  # fmt: skip

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
            **self._knob_values(wanted),
            self.knobs[ADAPTER]: gr.Dropdown(self._trained(project), value=wanted.model.adapter),
            self.knobs[METHOD]: self._methods(project, wanted),
            **self.file.show(project, wanted),
            **self._look(project, wanted),
        }

    def _bases(self, wanted: Recipe) -> gr.Dropdown:
        """The picker: what fits follows from the other knobs."""
        return gr.Dropdown(base_models(self._machine(wanted), wanted.train), value=wanted.model.base)

    def _prepared(self, project: Project) -> dict[Any, Any]:
        return {self.preparing: draw("preparing", told=models.prepare_status(project.workspace))}

    def _knob_values(self, wanted: Recipe) -> dict[Any, Any]:
        return {widget: knobs.shown(getattr(getattr(wanted, section), name))
                for (section, name), widget in self.knobs.items()}  # fmt: skip

    def _trained(self, project: Project) -> list[tuple[str, str]]:
        """What a training can begin from."""
        found = self.frame.runs.of_kind(project, "train")
        number = about.numbers([job for job, _ in found[::-1]])
        runs = [(job, view) for job, view in found if usable(view)]
        named = [(" · ".join(filter(None, [f"run {number[job.id]}", about.read(job).name, title(view)])), job.id)
                 for job, view in runs]  # fmt: skip
        return [*_AFRESH, *([("the newest run", further.NEWEST)] if named else []), *named]

    def _methods(self, project: Project, wanted: Recipe) -> gr.Dropdown:
        """The methods, each with whether it fits where the recipe trains, or why it cannot train there."""
        try:
            fits = self._place(project, wanted)
            words = [_method_words(wanted, method, self._here, fits.get(method)) for method in methods.NAMES]
        except FTError:  # no such base model, or machine: told as a finding
            words = list(methods.NAMES)
        return gr.Dropdown(list(zip(words, methods.NAMES)), value=wanted.train.method)

    def _place(self, project: Project, wanted: Recipe) -> dict[str, str]:
        name = wanted.compute.hardware if compute.is_rented(wanted.compute) else ""
        places = self._preflight(project, wanted).places
        return next((place.fits for place in places if place.name == name), {})

    def _preflight(self, project: Project, wanted: Recipe) -> Preflight:
        """Kept while rows, knobs and what is known of the machine's speed stay: it reads every row, up to a number."""
        ready = models.prepare_status(project.workspace).state
        key = (project.path, counts_stamp(project), wanted, ready, self._timed_by(project))
        if key not in self._looked:
            if len(self._looked) > 50:
                self._looked.clear()
            token = None if self.frame.house.on_space else ""  # there it comes with whoever presses the button
            self._looked[key] = preflight.preflight(project, wanted, preflight.LOOK, token)
        return self._looked[key]

    def _timed_by(self, project: Project) -> str:
        """The newest run that measured how fast this machine is; '' while there is none."""
        views = ((job.id, self.frame.runs.view(job)) for job in project.jobs())
        timed = (id for id, view in views if view.kind in ("train", "measure") and view.state is State.FINISHED)
        return next(timed, "")

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
        first = "Train"
        if compute.is_rented(wanted.compute):
            first = f"Rent a machine ({wanted.compute.hardware}) and train"
        text = f"{_AFTER if self._under_way(project) else first}{time}"
        button = gr.Button(text, interactive=not blocked)
        return {
            self.forecast: draw("forecast", look=look, machine=self._memory(wanted), methods=list(methods.NAMES)),
            self.go: button,
        }

    @cached_property
    def _here(self) -> Machine:
        return this_machine()

    def _machine(self, wanted: Recipe) -> Machine:
        """The one that the recipe trains on; this one where the recipe's is not known, which is a finding."""
        try:
            return compute.hardware(wanted.compute).machine if compute.is_rented(wanted.compute) else self._here
        except FTError:
            return self._here

    def _memory(self, wanted: Recipe) -> int:
        machine = processes.share(self._machine(wanted), wanted.compute.processes)
        return machine.gpu_memory_bytes or machine.memory_bytes

    def _under_way(self, project: Project) -> int:
        """How many trainings run or wait."""
        return sum(not view.state.over for _, view in self.frame.runs.of_kind(project, "train"))

    # --- what a person does

    def _followed(self, project: Project, wanted: Recipe) -> dict[Any, Any]:
        """What follows from a knob that was turned."""
        return {self.knobs[METHOD]: self._methods(project, wanted), **self.file.show(project, wanted),
                **self._look(project, wanted)}  # fmt: skip

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
        return {self.preset: gr.Radio(self._choices(project, wanted)), **self._followed(project, wanted)}

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
        adapter = wanted.model.adapter
        if self.frame.house.on_space and adapter and (project.path / adapter).exists():
            raise FTError("On a Space a training goes on from a run of the project, or from an adapter of the Hub.")
        return wanted

    def _take(self, field: Field):
        def take(name: str, value: Any, request: gr.Request) -> dict[Any, Any]:
            project = self.frame.open(request, name)
            wanted = self._allowed(project, with_field(self.recipes.of(project), field, value))
            self.recipes.keep(project, wanted)
            return {self.base: self._bases(wanted), self.preset: preset_of(wanted), **self._followed(project, wanted)}

        return take

    def mend(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        """A button beside a finding: the value of a knob that takes it away."""
        project = self.frame.open(request, name)
        wanted = self.recipes.of(project)
        section = next(s for s in ("train", "compute") if event.field in recipe.docs(_SECTIONS[s]))
        return self.take_whole(project, with_field(wanted, (section, event.field), event.value))

    def train(self, name: str, said: str, at: list[str], request: gr.Request) -> dict[Any, Any]:
        """`said` is what stood on the button: only who was told that this one waits gets one that waits."""
        project = self.frame.open(request, name)
        self.start_now(project, said.startswith(_AFTER), secrets_of(request, self.frame.house))
        at[0] = str(replace(Looking.of(at[0]), run=""))
        return {**self._look(project, self.recipes.of(project)), **self.side.show(project, at)}

    def start_now(self, project: Project, waits: bool = False, secrets: dict[str, str] | None = None) -> Job:
        """Starts a training by the project's recipe. Raises FTError when it cannot begin, and when one is under way
        that it does not want to wait for."""
        under_way = self._under_way(project)
        if under_way and not waits:
            raise FTError("A training is under way in this project.", "Wait for it, or stop it first.")
        if under_way > _MOST_WAITING:
            raise FTError(f"{under_way - 1} trainings wait already.", "Cancel one of them, or wait for the first.")
        wanted = self.recipes.of(project)
        self.recipes.keep(project, wanted)
        return start.start(project, wanted, secrets=secrets)


def headings() -> dict[str, list[Field]]:
    """Every field of a training, and of where it trains, under its heading, in the order of the recipe."""
    known = {name: heading for heading, names in _HEADINGS.items() for name in names}
    found: dict[str, list[Field]] = {heading: [] for heading in (*_HEADINGS, _REST)}
    for field in fields(TrainRecipe):
        found[known.get(field.name, _REST)].append(("train", field.name))
    found["What learns"].append(ADAPTER)
    found[_REST].append(("data", "heldout"))
    return found | {_WHERE: [("compute", field.name) for field in fields(ComputeRecipe)]}


_AFRESH = [("the base model as it is", "")]


def _knob(field: Field) -> Any:
    section, name = field
    match field:
        case ("model", "adapter"):
            return knobs.knob(ModelRecipe, name, _AFRESH, label="Start from (adapter)")
        case ("compute", "hardware"):
            return knobs.knob(ComputeRecipe, name, rentable())
    return knobs.knob(_SECTIONS[section], name)


def rentable() -> list[tuple[str, str]]:
    """The machines for Jobs, each with its memory and its price."""
    return [
        (f"{h.title} · {h.gpu_memory_gb or h.memory_gb} GB · ${h.job_usd:.2f} an hour", h.name)
        for h in machines.offered()
        if h.job_usd is not None
    ]


def _method_words(wanted: Recipe, method: str, machine: Machine, fit: str | None) -> str:
    """A method as the picker has it: whether it fits the machine that the recipe trains on, or why it cannot there."""
    if compute.is_rented(wanted.compute):
        why = compute.why_not(replace(wanted, train=replace(wanted.train, method=method)))
    else:
        why = methods.why_not(method, machine)
    if why:
        return why if why.startswith(method) else f"{method}: {why}"
    return f"{method} · {fit}" if fit else method


def with_field(wanted: Recipe, field: Field, value: Any) -> Recipe:
    """The recipe with one field as a widget gave it. Raises FTError that names the field and its range."""
    section, name = field
    return replace(wanted, **{section: knobs.taken(getattr(wanted, section), name, value)})


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
