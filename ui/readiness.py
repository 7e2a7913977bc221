"""Readiness: one line under the rows that says "ready to train" or what to look at, each finding with its buttons."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ft_core import jobs
from ft_core.data import audit, audit_job, cells, quality, split
from ft_core.data.quality import Action, Check, Finding
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.events import JobView
from ft_core.recipe import BUILTIN, Recipe
from ft_core.render import Renderer
from ft_core.train import models
from ft_core.workspace import Job, Project

from . import say
from .frame import Frame, Recipes
from .panel import draw, panel
from .renderers import renderer_of

_GROUPS = 20
"""Groups of rows that are alike, on the page at once."""
_FIRST_WORDS = 120
_LATER_S = 1.5
"""After a page was asked for, so that it is drawn before the check takes the processor."""
_KINDS = {
    "duplicate": "rows that say the same",
    "near_duplicate": "rows that say nearly the same",
    "similar": "rows that mean much the same",
}


@dataclass(frozen=True)
class Button:
    """What a finding offers, in words."""

    do: str
    flag: str
    value: int
    text: str


class Readiness:
    """The panel under the grid. Rows that are not too many are checked beside the page, without being asked."""

    def __init__(self, frame: Frame, recipes: Recipes):
        self.frame, self.recipes = frame, recipes
        self._checking: dict[Path, threading.Timer] = {}
        self.checks = panel(elem_id="checks")
        self.groups = panel(elem_id="groups")
        self.shown = [self.checks, self.groups]

    def listen(
        self,
        tell: Callable,
        outputs: list[Any],
        changed: Callable[[Project], dict],
        filtered: Callable[..., dict],
        knobs_changed: Callable[[Project], dict],
    ) -> None:
        """As Importing.listen; `knobs_changed` shows the recipe anew where its knobs are."""
        self.changed, self.filtered, self.knobs_changed = changed, filtered, knobs_changed
        private = {"api_visibility": "private", "show_progress": "hidden"}
        for one in (self.checks, self.groups):
            one.do(tell(self.answer), [self.frame.project], outputs, **private)

    # --- what it shows

    def show(self, project: Project) -> dict[Any, Any]:
        return {**self.tick(project), self.groups: ""}

    def tick(self, project: Project) -> dict[Any, Any]:
        wanted = self.recipes.of(project)
        renderer = renderer_of(project, wanted)
        with Store(project.data) as store:
            counts = store.counts()
            if not counts.rows:
                return {self.checks: ""}
            check = quality.check(store, renderer, wanted.train.max_length, look=0)
            few = counts.rows - counts.rejected <= quality.COMPARE and check.unseen <= quality.LOOK
        lacking = any(finding.name == "unchecked" for finding in check.findings)
        if lacking and few:
            self._check_beside(project, renderer, wanted)
        newest = self.frame.runs.newest(project, audit_job.KIND)
        return {self.checks: checks_panel(check, lacking and few, newest)}

    def _check_beside(self, project: Project, renderer: Renderer | None, wanted: Recipe) -> None:
        """It takes a second or some, which nobody waits for; the page hears of it by its stamp."""
        running = self._checking.get(project.path)
        if running and running.is_alive():
            return

        def check() -> None:
            with Store(project.data) as store:
                quality.check(store, renderer, wanted.train.max_length)

        self._checking = {path: thread for path, thread in self._checking.items() if thread.is_alive()}
        self._checking[project.path] = threading.Timer(_LATER_S, check)
        self._checking[project.path].daemon = True
        self._checking[project.path].start()

    # --- what a person does

    def answer(self, name: str, event: gr.EventData, request: gr.Request) -> dict[Any, Any]:
        project = self.frame.open(request, name)
        given = event._data
        flag = str(given.get("flag", ""))
        match event.do:
            case "show":
                return self.filtered(project, {"flag": flag})
            case "groups":
                return {self.groups: _groups(project, flag, int(given.get("offset", 0)))}
            case "leave":
                return {self.groups: ""}
            case "reject":
                with Store(project.data) as store:
                    audit.resolve(store, flag)
                return {**self.changed(project), self.groups: ""}
            case "max_length":
                self._keep(project, lambda r: replace(r, train=replace(r.train, max_length=int(given["value"]))))
                return {**self.changed(project), **self.knobs_changed(project)}
            case "split":
                self._split(project)
                return {**self.changed(project), **self.knobs_changed(project)}
            case "check":
                wanted = self.recipes.of(project)
                audit_job.start(project, wanted, _tokenizer(project, wanted))
            case "stop":
                jobs.stop(project.job(event.job))
        return self.tick(project)

    def _split(self, project: Project) -> None:
        """Rows that are alike go to one side; another seed draws other ones."""
        wanted = self.recipes.of(project)
        data = replace(wanted.data, group="near", seed=wanted.data.seed + 1)
        with Store(project.data) as store:
            split.assign(store, data.heldout, data.seed, group=data.group)
        self._keep(project, lambda r: replace(r, data=data))

    def _keep(self, project: Project, change: Callable[[Recipe], Recipe]) -> None:
        self.recipes.keep(project, change(self.recipes.of(project)))


def checks_panel(check: Check, checking: bool, newest: tuple[Job, JobView] | None) -> str:
    running = newest if newest and not newest[1].state.over else None
    findings = [f for f in check.findings if not (f.name == "unchecked" and (checking or running))]
    return draw("checks", check=check, findings=[(f, buttons(f)) for f in findings], checking=checking,
                job=running[0].id if running else "", view=running[1] if running else None,
                stopping=bool(running) and running[0].stop.exists(),
                left=f"about {say.duration(running[1].eta_s)} left" if running and running[1].eta_s else "",
                failed=newest[1] if newest and newest[1].error else None)  # fmt: skip


def buttons(finding: Finding) -> list[Button]:
    return [Button(a.kind, a.flag or finding.name, a.value, _words(a, finding)) for a in finding.actions]


def _words(action: Action, finding: Finding) -> str:
    one = finding.count == 1
    match action.kind:
        case "show":
            return "Show it" if one else "Show them"
        case "groups":
            return "Look at the groups"
        case "reject" if finding.name in audit.ALIKE:
            return "Keep the first, reject the other" if one else "Keep the first of each, reject the others"
        case "reject":
            return "Reject it" if one else f"Reject these {say.amount(finding.count)}"
        case "max_length":
            return f"Raise the limit to {say.amount(action.value)} tokens"
        case "split":
            return "Split anew, with rows that are alike on one side"
        case "add":
            return "Import rows"
    return "Check them"


def _groups(project: Project, kind: str, offset: int) -> str:
    with Store(project.data) as store:
        found = audit.groups(store, kind, offset, _GROUPS)
        with store.reading() as db:
            shown = [[_brief(row) for row in store.rows_by_id(db, group)] for group in found.groups]
    return draw("groups", kind=kind, words=_KINDS[kind], groups=shown, total=found.total, offset=offset,
                page=_GROUPS)  # fmt: skip


def _brief(row: Any) -> tuple[int, str, str]:
    texts = cells.read(row.conversation)
    return row.id, texts["prompt"][:_FIRST_WORDS], texts["response"][:_FIRST_WORDS]


def _tokenizer(project: Project, wanted: Recipe) -> Path | None:
    """None while the built-in model is being prepared: then no tokens are counted."""
    try:
        return models.tokenizer_folder(wanted.model.base, wanted.model.revision, project.workspace, project.path)
    except FTError:
        if wanted.model.base == BUILTIN:
            return None
        raise
